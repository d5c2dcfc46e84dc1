"""Which engine serves, and which one takes over when it must go.

Used by the loop's thread only. Engines come and go through `handover.py`, where it meets the thread that loads them; here
they change between two batches, so a batch ends on the engine that it was opened with. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.engine import Columns, Engine
from worker.handover import NOBODY, Declined, Fitted, Freed, Handover, Left, Order, Sample, Turned
from worker.model_status import ModelStatus
from worker.version_choice import VersionId

MAX_SAMPLE_ROWS = 1024
"""Rows of a batch that are copied for a comparison: well under a millisecond of the loop's time."""
QUARANTINED = "quarantined"
"""What a forecast says that the backup made because the fleet quarantined the version before it. One word for all reasons: it is
a metric's label."""
NOTHING_ELSE = "no other version can serve: release it, or publish another one"


class EngineSlot:
    """Holds the serving engine and its backup.

    Args:
        serving: computes.
        backup: stays loaded, to compute what the serving one can't and to take over from it. None: there is none.
        handover: brings other engines. None: it stays with these.
        versions: which versions the two run. A backup without a version is the last resort: it is never freed, and is the
            backup again whenever there is no other.
        probe: called with the name of each point where a version changes; see `loading.MODEL_PROBES`.
    """

    def __init__(
        self,
        serving: Engine,
        backup: Engine | None = None,
        *,
        handover: Handover | None = None,
        versions: Sequence[Fitted] = (),
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._serving = serving
        self._backup = backup
        self._handover = handover or Handover()
        self._fitted = list(versions)
        self._probe = probe
        self._last_resort = backup if backup is not None and self._version(backup) is None else None
        self._leaving: list[Engine] = []
        self._rolled_back: str | None = None
        self._losses = 0
        self._held: str | None = None
        self._told: Mapping[VersionId, str] = NOBODY
        self._batches = 0
        self._closed = False

    @property
    def serving(self) -> Engine:
        """The engine for the next batch."""
        return self._serving

    @property
    def backup(self) -> Engine | None:
        """The engine that takes over, and computes single rows meanwhile; None if there is none."""
        return self._backup

    @property
    def can_roll_back(self) -> bool:
        """Whether another engine may take over from the serving one."""
        return self._backup is not None

    @property
    def fitted(self) -> Sequence[Fitted]:
        """The versions in use, those that are leaving among them. A new sequence whenever they change."""
        return self._fitted

    @property
    def backup_expected(self) -> bool:
        """Whether there is no backup now, but one is on its way."""
        return self._backup is None and self._handover.backup_expected

    @property
    def rolled_back(self) -> str | None:
        """Why the serving engine serves in the place of the one chosen, as forecasts say it; None while the chosen one serves."""
        return self._rolled_back

    @property
    def held(self) -> str | None:
        """Why nothing may be computed now: the serving version was quarantined and nothing can take over. None: all is well."""
        return self._held

    @property
    def loading(self) -> bool:
        """True while another version is being loaded, proved, compared or handed over, or one is being closed."""
        return self._handover.loading

    @property
    def status(self) -> ModelStatus:
        """What is known of all versions. Never changes; the loader's thread makes a new one."""
        return self._handover.status

    def turn_over(self, used: Callable[[Engine], bool]) -> str | None:
        """Between two batches: take up what was handed over, leave what was quarantined, free what isn't used.

        used(engine): whether a batch holds a slot or ticket of it, or closing it has to wait for another reason. Returns None, or why the version that served had to go
        at once; then what it computed and isn't committed must be discarded.
        """
        if self._handover.failed is not None:
            raise self._handover.failed
        left = None
        if self._handover.quarantined is not self._told:
            left = self._obey(self._handover.quarantined)
        order = self._handover.orders.take()
        if order is not None:
            self._take(order)
        if self._leaving:
            self._free(used)
        return left

    def roll_back(self, reason: str) -> Engine | None:
        """The backup serves from now on; returns it, or None, with nothing changed, if there is no backup.

        The version that served is quarantined for this worker, and, if there is a fleet, for all of it. Batches may still
        hold slots of its engine; it is freed when none does, and never serves again here.
        """
        return self._next(reason, told=False)

    def hold(self, reason: str) -> bool:
        """Compute nothing until another version was handed over; the one that serves is quarantined as in `roll_back`.

        For when the serving version must go and there is no backup. False, with nothing changed, if nobody could bring
        another one.
        """
        version = self._version(self._serving)
        if version is None:
            return False
        self._held = f"{reason}; {NOTHING_ELSE}"
        self._losses += 1  # what is on its way was thought out before
        left = Left(version=version, now=None, reason=reason, told=False, held=True)
        self._handover.inbox.put(left)
        self._handover.left.put(left)
        return True

    def standby_of(self, engine: Engine) -> Engine | None:
        """What computes the version of `engine` while its device has no memory left; None if nothing does."""
        return next((each.standby for each in self._fitted if each.engine is engine), None)

    def sample(self, engine: Engine, columns: Columns, values: NDArray[np.float32]) -> None:
        """Offer a batch that `engine` has computed for comparison: now and then, if someone asks, it is copied.

        `columns` as in its slot, `values` float32[rows, horizon, quantiles]; neither is kept.
        """
        every = self._handover.sample_every
        if not every or engine is not self._serving:
            return
        self._batches += 1
        if self._batches >= every and self._handover.sample_wanted:
            self._batches = 0
            rows = min(len(values), MAX_SAMPLE_ROWS)
            copies = {name: column[:rows].copy() for name, column in columns.items()}
            self._handover.sample_wanted = False
            self._handover.inbox.put(Sample(copies, values[:rows].copy()))

    def close(self) -> None:
        """Close them all, each once. Idempotent."""
        if self._closed:
            return
        self._closed = True
        held = [
            self._serving,
            self._backup,
            self._last_resort,
            *self._leaving,
            *(each.standby for each in self._fitted),
        ]
        for engine in {id(engine): engine for engine in held if engine is not None}.values():
            engine.close()
        self._leaving.clear()

    def _take(self, order: Order) -> None:
        fitted = [order.serving, *([] if order.backup is None else [order.backup])]
        if order.losses != self._losses or any(each.version in self._told for each in fitted):
            self._handover.inbox.put(Declined(order))
            return
        backup = self._last_resort if order.backup is None else order.backup.engine
        if backup is order.serving.engine:
            backup = None
        self._leave_out(order.serving.engine, backup)
        self._fitted = fitted + [each for each in self._fitted if each.engine in self._leaving]
        if order.serving.engine is not self._serving:
            self._rolled_back = None
        self._serving, self._backup, self._held = order.serving.engine, backup, None
        self._probe("model_taken")
        self._handover.inbox.put(Turned(order))

    def _leave_out(self, serving: Engine, backup: Engine | None) -> None:
        """Whoever serves or backs up now and won't then has to leave; whoever was to leave and won't is kept."""
        for engine in (self._serving, self._backup):
            if engine is not None and engine is not serving and engine is not backup:
                self._go(engine)
        self._leaving = [engine for engine in self._leaving if engine is not serving and engine is not backup]

    def _go(self, engine: Engine) -> None:
        if engine is not self._last_resort and engine not in self._leaving:
            self._leaving.append(engine)

    def _obey(self, told: Mapping[VersionId, str]) -> str | None:
        """The fleet's quarantine has changed. A quarantined backup goes; a quarantined serving version goes at once."""
        before, self._told = self._told, told
        if self._backup is not None and self._version(self._backup) in told:
            self._go(self._backup)
            self._backup = None if self._backup is self._last_resort else self._last_resort
            self._losses += 1
        version = self._version(self._serving)
        reason = None if version is None else told.get(version)
        if reason is None or version is None:
            if version in before:  # released; before the fleet has heard of what this worker holds back, it isn't
                self._held = None
            return None
        reason = f"version {version} was quarantined: {reason}"
        already = self._held is not None
        if self._next(reason, told=True) is None:
            self._held = f"{reason}; {NOTHING_ELSE}"
            if already:
                return None
            self._handover.inbox.put(Left(version=version, now=None, reason=reason, told=True, held=True))
        return reason

    def _next(self, reason: str, *, told: bool) -> Engine | None:
        if self._backup is None:
            return None
        version = self._version(self._serving)
        self._go(self._serving)
        self._serving, self._backup = self._backup, None
        if self._last_resort is not self._serving:
            self._backup = self._last_resort
        self._rolled_back, self._held = (QUARANTINED if told else reason), None
        self._losses += 1
        self._probe("model_left")
        if version is not None:
            now = self._version(self._serving)
            left = Left(version=version, now=now, reason=reason, told=told, held=False)
            self._handover.inbox.put(left)
            if not told:
                self._handover.left.put(left)
        return self._serving

    def _free(self, used: Callable[[Engine], bool]) -> None:
        for engine in [engine for engine in self._leaving if not self._in_use(engine, used)]:
            self._leaving.remove(engine)
            self._fitted = [each for each in self._fitted if each.engine is not engine]
            self._handover.inbox.put(Freed(engine))

    def _in_use(self, engine: Engine, used: Callable[[Engine], bool]) -> bool:
        standby = self.standby_of(engine)
        return used(engine) or (standby is not None and used(standby))

    def _version(self, engine: Engine) -> VersionId | None:
        return next((each.version for each in self._fitted if each.engine is engine), None)
