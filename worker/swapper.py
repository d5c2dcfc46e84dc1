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
from worker.findings import Findings
from worker.first_version import First
from worker.handover import Declined, Freed, Handover, Left, Look, Order, Report, Sample, Turned
from worker.loading import Loaded, Loader, RefusedError
from worker.model_status import Outcome, Phase
from worker.refusals import Refusals
from worker.shadow_run import Trial, Trials
from worker.store_listing import StoreView
from worker.version_choice import Choice, Listing, Rule, VersionId, choose
from worker.version_states import State

log = structlog.get_logger(__name__)

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
        self._like = first.loaded.engine.spec  # inputs are the first version's for as long as the worker runs
        self._backup: Loaded | None = None
        self._next: Loaded | None = None
        self._trials = Trials(policy.trial, handover, clock)
        self._refusals = Refusals(view, clock, first.passing)
        self._ordered: tuple[Loaded, Loaded | None] | None = None
        self._ordered_s = 0.0
        self._going: list[Loaded] = []
        self._losses = 0
        self._held: str | None = None
        self._findings = Findings(policy.model, commands)
        self._listing: Listing | None = None
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
            self._losses += 1
        for loaded in [each for each in self._going if each.engine is engine]:
            self._probe("model_closing")
            self._handover.loading = True  # closing counts, waiting for it doesn't
            self._going.remove(loaded)
            began_s = self._clock()
            loaded.close()
            self._bulletin.timed(Phase.CLOSE, self._clock() - began_s)
            self._probe("model_freed")

    def _left(self, left: Left) -> None:
        self._bulletin.count(Outcome.LEFT if left.told else Outcome.ROLLED_BACK)
        log.error("version left", version=str(left.version), reason=left.reason, now=str(left.now), held=left.held)
        if not left.told:
            self._findings.add(left.version, left.reason)
        if not (left.held and left.told):
            self._losses += 1
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
        return self._trials.ask()

    def _decide(self) -> None:
        if self._refusals.forgive_due():
            self._listing = None
        listing = self._listing = self._listing or self._view.look()
        serving = None if self._serving is None else self._serving.version
        control = self._findings.control()
        if serving not in control.quarantined:
            self._held = None  # the quarantine that nothing could take over from was released
        before = [] if self._backup is None else [self._backup.version]
        before += [version for version in self._served if version in listing.versions]
        choice = choose(listing, control, refused=self._view.refused, serving=serving, before=before)
        self._bulletin.forget(listing.versions)
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
        if not self._wants_trial(choice) or self._stands_trial(self._next):
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
        self._view.trying(version)
        self._publish(loading=True)
        try:
            self._next = self._loader.load(version, self._like)
        except RefusedError as error:
            self._bulletin.move(version, State.REFUSED)
            if error.passing and self._backup is not None and self._serving is not None:
                log.warning("the backup is given up to make room", version=str(version), reason=str(error))
                self._order(self._serving, None)
                return
            self._refused(version, str(error), passing=error.passing)
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
                losses=self._losses,
            )
        )
        self._probe("model_handed_over")

    # -- trial in the shadow -----------------------------------------------------------------------------------------

    def _wants_trial(self, choice: Choice) -> bool:
        return self._trials.wanted and choice.rule is Rule.CURRENT and self._serving is not None and self._held is None

    def _stands_trial(self, loaded: Loaded) -> bool:
        """True once `loaded` may serve. Starts its trial; if it fails, refuses it."""
        if self._serving is not None and self._bulletin.state(loaded.version) is State.PROVEN:
            self._trials.start(loaded, self._serving)
            self._bulletin.move(loaded.version, State.SHADOW)
        run = self._trials.run
        if run is None:  # it stood one before, and the order that it won was declined
            return True
        verdict = run.verdict() if run.complete else None
        if verdict is not None:
            self._refuse_next(verdict)
        return run.complete and verdict is None

    def _compare(self, sample: Sample) -> None:
        problem = self._trials.compare(sample)
        if problem is not None:
            self._refuse_next(problem)

    def _end_trial(self) -> None:
        took_s = self._trials.end()
        if took_s is not None:
            self._bulletin.timed(Phase.SHADOW, took_s)

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
        self._refusals.refuse(version, reason, passing=passing)
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

    def _publish(self, *, loading: bool = False) -> None:
        self._handover.loading = loading or self._next is not None or self._ordered is not None
        self._handover.backup_expected = self._expects_backup()
        self._bulletin.publish(
            self._view,
            self._choice,
            quarantined=self._findings.control().quarantined,
            shadow=None if self._trials.run is None else self._trials.run.difference,
            held=self._held,
            device=self._loader.device_memory(),
        )

    def _expects_backup(self) -> bool:
        wanted = self._choice.backup
        if self._serving is not None and wanted == self._serving.version:
            return False  # it will be the backup of one that is still on its way
        return self._policy.keep_backup and wanted is not None and wanted not in self._view.refused

    def _remember(self, version: VersionId) -> None:
        if version in self._served:
            self._served.remove(version)
        self._served.appendleft(version)
