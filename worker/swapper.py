"""What the loader's thread does: decide which version should serve, load it, try it, hand it over, close what came back.

`Swapper` is a plain object: `handle` one report, `turn`, and it says how long it may sleep. `model_thread.py` runs it; tests
call it. One version is on its way at a time. Whatever one version does wrong, the next turn looks at all of them anew.

Which thread closes an engine: this one, after the loop has said that no batch holds anything of it (`Freed`), so that giving
memory back never stalls the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from worker.bulletin import Bulletin
from worker.control import Commands, WorkerState
from worker.deadline import Clock
from worker.errors import FatalEngineError
from worker.findings import Findings
from worker.first_version import First
from worker.handover import Declined, Freed, Handover, Left, Look, Order, Report, Sample, Turned
from worker.loading import Loaded, Loader, RefusedError
from worker.model_status import Outcome, Phase
from worker.shadow_run import ShadowRun, Trial
from worker.store_listing import StoreView
from worker.version_choice import Choice, Listing, Rule, VersionId, choose
from worker.version_states import State

log = structlog.get_logger(__name__)

RETRY_S = 60.0
"""A version that found no room is tried again after so long."""
REMEMBERED = 8
"""So many versions that served before are preferred as backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """keep_backup: hold the version before the serving one loaded. trial: None to serve new versions at once."""

    model: str
    worker: str
    keep_backup: bool
    trial: Trial | None


class Swapper:
    """Looks after the versions of one store. Owns every engine that the loop doesn't.

    Args:
        commands: what the fleet was told, as of now.
        tell: is given this worker's state whenever it changes.
    """

    def __init__(  # noqa: PLR0913 - everything is injected
        self,
        *,
        policy: Policy,
        view: StoreView,
        loader: Loader,
        handover: Handover,
        first: First,
        clock: Clock,
        commands: Callable[[], Commands] = Commands.none,
        tell: Callable[[WorkerState], None] = lambda _: None,
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._view = view
        self._loader = loader
        self._handover = handover
        self._clock = clock
        self._probe = probe
        self._serving: Loaded | None = first.loaded
        self._backup: Loaded | None = None
        self._next: Loaded | None = None
        self._shadow: ShadowRun | None = None
        self._ordered: tuple[Loaded, Loaded | None] | None = None
        self._ordered_s = 0.0
        self._going: list[Loaded] = []
        self._rollbacks = 0
        self._held: str | None = None
        self._findings = Findings(policy.model, commands)
        self._listing: Listing | None = None
        self._retry_s: dict[VersionId, float] = {}
        self._served: deque[VersionId] = deque(maxlen=REMEMBERED)
        self._choice = first.choice
        self._bulletin = Bulletin(policy.model, policy.worker, handover, tell)
        self._bulletin.starts_with(first.loaded.version)
        loader.timed = self._bulletin.timed
        handover.status = replace(handover.status, loads=first.loads)
        handover.backup_expected = self._expects_backup()

    # -- reports of the loop -----------------------------------------------------------------------------------------

    def handle(self, report: Report) -> None:
        """Take one report."""
        match report:
            case Turned():
                self._turned()
            case Declined():
                self._ordered = None
            case Freed(engine):
                self._freed(engine)
            case Left():
                self._left(report)
            case Sample():
                self._compare(report)
            case Look():
                self._listing = None

    def _turned(self) -> None:
        if self._ordered is None:
            return
        self._probe("model_turned")
        serving, backup = self._ordered
        before = self._serving
        self._ordered = self._held = None
        self._bulletin.timed(Phase.HAND_OVER, self._clock() - self._ordered_s)
        for loaded in (self._serving, self._backup):
            if loaded is not None and loaded is not serving and loaded is not backup:
                self._bulletin.move(loaded.version, State.RETIRED)
                self._going.append(loaded)
        self._serving, self._backup = serving, backup
        if self._next in {serving, backup}:
            self._next = None
        if serving is not before:
            self._bulletin.move(serving.version, State.SERVING)
            self._bulletin.count(Outcome.SERVED)
            if before is not None:
                self._remember(before.version)
            log.info("version serves", version=str(serving.version), chosen_by=self._choice.rule.value)
        if backup is not None and self._bulletin.state(backup.version) is not State.BACKUP:
            self._bulletin.move(backup.version, State.BACKUP)

    def _freed(self, engine: object) -> None:
        backup = self._backup
        if backup is not None and backup.engine is engine:  # the loop dropped it, because it was quarantined
            self._bulletin.move(backup.version, State.RETIRED)
            self._going.append(backup)
            self._backup = None
        for loaded in [each for each in self._going if each.engine is engine]:
            self._probe("model_closing")
            self._going.remove(loaded)
            loaded.close()
            self._probe("model_freed")

    def _left(self, left: Left) -> None:
        self._bulletin.count(Outcome.LEFT if left.told else Outcome.ROLLED_BACK)
        log.error("version left", version=str(left.version), reason=left.reason, now=str(left.now), held=left.held)
        if not left.told:
            self._findings.add(left.version, left.reason)
        if not (left.held and left.told):
            self._rollbacks += 1
        if left.held:
            self._held = left.reason
            return
        if self._serving is not None:
            self._bulletin.move(self._serving.version, State.RETIRED)
            self._going.append(self._serving)
        self._serving = None
        if self._backup is not None and self._backup.version == left.now:
            self._serving, self._backup = self._backup, None
            self._bulletin.move(self._serving.version, State.SERVING)

    # -- what to do next ---------------------------------------------------------------------------------------------

    def turn(self) -> float:
        """Do what is to be done now; returns after how many seconds, at most, to come again even if nothing is reported."""
        if self._ordered is None:
            self._decide()
        self._publish()
        if self._shadow is None:
            return float("inf")
        return self._shadow.ask(self._handover, self._clock())

    def _decide(self) -> None:
        now_s = self._clock()
        for version in [version for version, at_s in self._retry_s.items() if at_s <= now_s]:
            del self._retry_s[version]
            self._view.forgive(version)
            self._listing = None
        listing = self._listing = self._listing or self._view.look()
        serving = None if self._serving is None else self._serving.version
        before = [] if self._backup is None else [self._backup.version]
        before += [version for version in self._served if version in listing.versions]
        choice = choose(listing, self._findings.control(), refused=self._view.refused, serving=serving, before=before)
        self._bulletin.forget(listing.versions)
        self._findings.forget(listing.versions)
        if choice.notes and choice.notes != self._choice.notes:
            log.warning("not every wish can be met", notes=choice.notes)
        self._choice = choice
        if choice.target is None:
            self._drop_next("no version is chosen")
        elif choice.target != serving:
            self._go_to(choice.target, choice)
        else:
            self._see_to_backup(choice.backup)

    def _go_to(self, target: VersionId, choice: Choice) -> None:
        if self._next is not None and self._next.version != target:
            self._drop_next(f"version {target} is chosen now")
        if self._backup is not None and self._backup.version == target:
            self._order(self._backup, choice.backup)
            return
        if self._next is None and not self._going:  # what goes gives its memory back first
            self._load(target)
        if self._next is None or self._ordered is not None:
            return
        if self._shadow is None and self._wants_trial(choice) and self._bulletin.state(target) is State.PROVEN:
            self._start_trial(self._next)
        if self._shadow is not None and self._wants_trial(choice):
            if not self._shadow.complete:
                return
            verdict = self._shadow.verdict()
            if verdict is not None:
                self._refuse_next(verdict)
                return
        self._order(self._next, choice.backup)

    def _see_to_backup(self, wanted: VersionId | None) -> None:
        """Have `wanted` loaded beside the serving version."""
        if not self._policy.keep_backup:
            wanted = None
        upcoming = None if self._next is None else self._next.version
        if upcoming is not None and (upcoming != wanted or self._bulletin.state(upcoming) is State.SHADOW):
            self._drop_next("no longer chosen")
        has = None if self._backup is None else self._backup.version
        if self._serving is None or wanted == has:
            return
        if wanted is not None and self._next is None and not self._going:
            self._load(wanted)
        if self._ordered is None and (wanted is None or self._next is not None):
            self._order(self._serving, wanted)

    def _load(self, version: VersionId) -> None:
        """Load `version` as the next one. If memory is short, the backup has to go first."""
        self._bulletin.move(version, State.LOADING)
        self._handover.loading = True
        self._publish()
        like = None if self._serving is None else self._serving.engine.spec
        try:
            self._next = self._loader.load(version, like)
        except RefusedError as error:
            self._bulletin.move(version, State.REFUSED)
            if error.passing and self._backup is not None and self._serving is not None:
                log.warning("the backup is given up to make room", version=str(version), reason=str(error))
                self._order(self._serving, None)
                return
            self._refused(version, str(error), passing=error.passing)
        except FatalEngineError as error:
            self._handover.failed = error
        else:
            self._bulletin.move(version, State.PROVEN)

    def _order(self, serving: Loaded, backup: VersionId | None) -> None:
        """Ask the loop to turn over to `serving`, with `backup` if it is loaded and memory allows."""
        changes = serving is not self._serving
        keep = self._policy.keep_backup and (not changes or self._loader.has_headroom())
        loaded = [
            each for each in (self._serving, self._backup, self._next) if each is not None and each is not serving
        ]
        second = next((each for each in loaded if each.version == backup), None) if keep else None
        self._end_trial()
        self._ordered, self._ordered_s = (serving, second), self._clock()
        self._handover.orders.put(
            Order(
                serving=serving.fitted,
                backup=None if second is None else second.fitted,
                rollbacks=self._rollbacks,
            )
        )
        self._probe("model_handed_over")

    # -- trial in the shadow -----------------------------------------------------------------------------------------

    def _wants_trial(self, choice: Choice) -> bool:
        return (
            self._policy.trial is not None
            and choice.rule is Rule.CURRENT
            and self._serving is not None
            and self._held is None
        )

    def _start_trial(self, loaded: Loaded) -> None:
        if self._policy.trial is None or self._serving is None:
            return
        self._shadow = ShadowRun(self._policy.trial, loaded, self._serving, self._clock)
        self._bulletin.move(loaded.version, State.SHADOW)
        log.info("version runs in the shadow", version=str(loaded.version), rows=self._policy.trial.bounds.rows)

    def _compare(self, sample: Sample) -> None:
        if self._shadow is None:
            return
        problem = self._shadow.compare(sample)
        if problem is not None:
            self._refuse_next(problem)

    def _end_trial(self) -> None:
        if self._shadow is not None:
            self._bulletin.timed(Phase.SHADOW, self._clock() - self._shadow.began_s)
        self._handover.sample_every, self._handover.sample_wanted = 0, False
        self._shadow = None

    # -- the end of a version ----------------------------------------------------------------------------------------

    def _refuse_next(self, reason: str) -> None:
        loaded, self._next = self._next, None
        self._end_trial()
        if loaded is not None:
            loaded.close()
            self._bulletin.move(loaded.version, State.REFUSED)
            self._refused(loaded.version, reason)

    def _refused(self, version: VersionId, reason: str, *, passing: bool = False) -> None:
        self._bulletin.count(Outcome.REFUSED)
        self._view.refuse(version, reason)
        if passing:
            self._retry_s[version] = self._clock() + RETRY_S
        log.error("version refused", version=str(version), reason=reason)

    def _drop_next(self, reason: str) -> None:
        loaded, self._next = self._next, None
        self._end_trial()
        if loaded is not None:
            log.info("version dropped before it served", version=str(loaded.version), reason=reason)
            loaded.close()
            self._bulletin.move(loaded.version, State.RETIRED)

    def close(self) -> None:
        """Once the loop has ended: close every engine that it doesn't hold. The rest is the slot's."""
        while not self._handover.inbox.empty():
            report = self._handover.inbox.get_nowait()
            if isinstance(report, Turned | Declined | Freed | Left):
                self.handle(report)
        self._handover.orders.take()
        self._ordered = None
        self._drop_next("the worker stops")

    # -- what others see ---------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        self._handover.loading = self._next is not None or self._ordered is not None or bool(self._going)
        self._handover.backup_expected = self._expects_backup()
        shadow = None if self._shadow is None else self._shadow.difference
        self._bulletin.publish(
            self._view,
            self._choice,
            quarantined=self._findings.control().quarantined,
            shadow=shadow,
            held=self._held,
            device=self._loader.device_memory(),
        )

    def _expects_backup(self) -> bool:
        wanted = self._choice.backup
        return self._policy.keep_backup and wanted is not None and wanted not in self._view.refused

    def _remember(self, version: VersionId) -> None:
        if version in self._served:
            self._served.remove(version)
        self._served.appendleft(version)
