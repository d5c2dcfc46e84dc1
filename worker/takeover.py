"""Who computes when the serving engine can't or mustn't, and computing a batch there.

Rules of this file:

- An engine that is left is rolled back first. Then every batch that it still has is computed by the engine that took over, so
  nothing that it computed is published from then on; a slow one's numbers are right, and stay.
- Computing again happens at once, in the loop's thread: rare, and so the order of batches stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.backup_wait import BackupWait
from worker.breaker import Breaker
from worker.engine import Columns, Engine, Slot
from worker.errors import AbortableError, EngineError
from worker.flight import Computed, Flight
from worker.guard import Rule
from worker.guard_watch import Guard, Trip
from worker.handover import Fitted
from worker.hotswap import EngineSlot
from worker.recompute import Recomputed, recompute
from worker.standby import REASON, StandBy
from worker.statistics import Tallies

log = structlog.get_logger(__name__)


class Takeover:
    """The serving engine, its backup and its stand-by, and who of them computes now.

    Args:
        engines: the serving engine and its backup. The backup's inputs must be among the serving one's.
        standby: stands in while a device has no memory left.
        guard: is told of roll-backs, and knows a control batch of each engine.
        wait: for a backup that is on its way.
        breaker: tripped when forecasts aren't trusted, there is no backup, and nobody can bring another version.
        poison_rows, floor_rows: see `recompute`.
    """

    def __init__(
        self,
        *,
        engines: EngineSlot,
        standby: StandBy,
        wait: BackupWait,
        guard: Guard,
        breaker: Breaker,
        poison_rows: int,
        floor_rows: int,
        tallies: Tallies,
    ) -> None:
        self._engines = engines
        self._standby = standby
        self._wait = wait
        self._guard = guard
        self._breaker = breaker
        self._poison_rows = poison_rows
        self._floor_rows = floor_rows
        self._tallies = tallies
        self._left: list[tuple[Engine, Rule]] = []
        self._known: Sequence[Fitted] = ()
        self._learn()

    @property
    def engine(self) -> Engine:
        """What computes the next batch: the serving engine, or the stand-by."""
        return self._standby.instead_of(self._engines.serving)

    @property
    def engines(self) -> EngineSlot:
        """The serving engine and its backup."""
        return self._engines

    @property
    def held(self) -> str | None:
        """Why nothing may be computed now; None: all is well."""
        return self._engines.held or self._wait.held

    def turn_over(self, used: Callable[[Engine], bool]) -> str | None:
        """Between two batches: see `EngineSlot.turn_over`."""
        doubted = None if self._wait.held is None else self._engines.serving
        left = self._engines.turn_over(lambda engine: used(engine) or self._standby.uses(engine))
        if left is not None:  # the fleet knows better than this worker's window
            self._standby.forget()
            self._guard.rolled_back()
        elif doubted is not None and doubted is not self._engines.serving:
            self._guard.rolled_back()
        if self._engines.fitted is not self._known:
            self._learn()
        return left

    def other_than(self, engine: Engine) -> Engine | None:
        """Who else can forecast a row that `engine` can't; None if nobody."""
        return self._engines.backup if engine in (self.engine, self._engines.serving) else self.engine

    def is_aside(self, engine: Engine) -> bool:
        """Whether a batch must not be handed to `engine` any more."""
        return self._standby.primary is engine or any(each is engine for each, _ in self._left)

    def distrusts(self, engine: Engine) -> bool:
        """Whether `engine` was left because its numbers can't be believed."""
        return any(each is engine and rule is not Rule.ENGINE_ERROR for each, rule in self._left)

    def why(self, engine: Engine) -> str | None:
        """What a forecast by `engine` says about why the version that was chosen didn't make it; None if it did."""
        if self._standby.is_standby(engine):
            return REASON
        return self._engines.rolled_back if engine is self._engines.serving else None

    def tend(self, flights: Sequence[Flight]) -> None:
        """Between batches: leave the stand-by when its time has come, forget engines without a batch. Raises `FatalEngineError`."""
        if self._left:
            self._left = [(e, rule) for e, rule in self._left if any(flight.engine is e for flight in flights)]
        primary = self._standby.primary
        if primary is None or any(flight.engine is primary for flight in flights):
            return
        if primary is not self._engines.serving:  # another version serves meanwhile
            self._standby.forget()
        else:
            self._standby.try_primary()
        self._tallies.standby(active=self._standby.active)

    def _learn(self) -> None:
        """Hold the forecasts of each version against what its card says of them, also when its stand-by makes them."""
        self._known = self._engines.fitted
        digests = {each.version.digest: each.reference for each in self._known}
        self._guard.know_versions(digests | {each.engine.spec.digest: each.reference for each in self._known})

    # -- computing ---------------------------------------------------------------------------------------------------

    def again(self, flight: Flight, behind: Sequence[Flight]) -> Computed:
        """The batch once more on its own engine, in parts where the whole doesn't go. Raises what `recompute` raises."""
        slot = flight.batch.slot
        assert slot is not None  # noqa: S101 - only batches with rows are computed
        self._settle(flight.engine, behind)
        run = self._recompute(flight.engine, slot, flight.copied_inputs(), np.arange(flight.batch.rows))
        return _computed(flight.engine, run, self.why(flight.engine))

    def elsewhere(self, flight: Flight, behind: Sequence[Flight]) -> Computed:
        """The batch by the engine that computes now. Raises `AbortableError` if that has no slot free."""
        engine = self.engine
        run = self.rows(engine, flight.copied_inputs(), np.arange(flight.batch.rows), behind)
        return _computed(engine, run, self.why(engine))

    def rows(self, engine: Engine, inputs: Columns, rows: NDArray[np.intp], behind: Sequence[Flight]) -> Recomputed:
        """`rows` of `inputs` (float32[n, ...] each) by `engine`, out of turn. Raises as `elsewhere` and `recompute` do."""
        self._settle(engine, behind)
        slot = engine.acquire()
        if slot is None:
            raise AbortableError(
                "the engine that is to compute a batch again has no slot free; its records are read again"
            )
        try:
            return self._recompute(engine, slot, inputs, rows)
        finally:
            engine.release(slot)

    def _recompute(self, engine: Engine, slot: Slot, inputs: Columns, rows: NDArray[np.intp]) -> Recomputed:
        return recompute(
            engine,
            slot,
            inputs,
            rows,
            poison_rows=self._poison_rows,
            floor_rows=self._floor_rows,
            control=self._guard.reference(engine.spec).control,
        )

    def _settle(self, engine: Engine, behind: Sequence[Flight]) -> None:
        """Take the results that `engine` still owes, so that it can be used out of turn. They wait in their slots."""
        for each in behind:
            if each.engine is engine:
                each.collect(self.why(engine))

    # -- leaving an engine -------------------------------------------------------------------------------------------

    def can_leave(self, engine: Engine) -> bool:
        """Whether something else can compute instead of `engine`."""
        return engine is not self.engine or self._engines.can_roll_back

    def await_backup(self, why: str) -> None:
        """Raise `AbortableError` if a backup is on its way that can do better; its records are read again then."""
        if self._wait.needs(why):
            raise AbortableError(why)

    def leave(self, engine: Engine, trip: Trip, behind: Sequence[Flight], error: EngineError | None = None) -> None:
        """Roll back from `engine`, and compute again what it still has.

        Without a backup raises `AbortableError` while one is on its way. If none is, raises `error`, or raises
        `AbortableError` after it quarantined the version, or, where nobody can bring another one, tripped the breaker.
        """
        if engine is self.engine and not self._engines.can_roll_back:
            self.await_backup(f"{trip.rule}: {trip.detail}")
        self._tallies.guard_tripped(trip.rule)
        if engine is not self.engine:  # another one computes already
            return
        left = (engine, self._engines.serving)
        if not self._roll_back(trip):
            if error is not None:
                raise error
            self._hold(trip)
            self._breaker.trip(
                f"{trip.rule}: {trip.detail}; there is no backup to take over, so consuming stopped. Set engine.backup, or "
                "publish a sound version, then restart the worker."
            )
            raise AbortableError(f"breaker tripped: {self._breaker.tripped}")
        self._left += [(each, trip.rule) for each in left]
        for each in behind:
            has = each.engine if each.computed is None else each.computed.engine
            if has in left and each.batch.slot is not None:
                _forget_result(each)
                each.computed = self.elsewhere(each, ())

    def leave_slow(self, trip: Trip) -> None:
        """Roll back from an engine whose numbers are right: what it has computed is published, the next batch isn't its."""
        if self._engines.can_roll_back:
            self._tallies.guard_tripped(trip.rule)
            self._roll_back(trip)

    def stand_in(self, engine: Engine, behind: Sequence[Flight]) -> bool:
        """Enter the stand-by of `engine`, and compute there what failed behind it. False if there is no stand-by."""
        if engine is not self._engines.serving or self._standby.enter(engine) is None:
            return False
        self._tallies.standby(active=True)
        for each in behind:
            if each.engine is engine and each.error is not None:
                each.error = None
                each.computed = self.elsewhere(each, ())
        return True

    def _hold(self, trip: Trip) -> None:
        """Raise `AbortableError` if another version may be brought: until then, nothing is computed."""
        if self._engines.hold(trip.rule.fallback_reason):
            self._standby.forget()
            self._guard.rolled_back()
            self._tallies.standby(active=False)
            raise AbortableError(f"{trip.rule}: {trip.detail}; {self._engines.held}")

    def _roll_back(self, trip: Trip) -> bool:
        old = self._engines.serving.spec
        if self._engines.roll_back(trip.rule.fallback_reason) is None:
            return False
        self._standby.forget()
        self._guard.rolled_back()
        self._tallies.standby(active=False)
        self._tallies.rolled_back(trip.rule)
        self._tallies.engine(self._engines.serving.spec)
        log.error("rolled back to the backup", model=old.model, version=old.version, rule=trip.rule, detail=trip.detail)
        return True


def _forget_result(flight: Flight) -> None:
    """Take what the engine owes for `flight`, and forget it. Raises `FatalEngineError`."""
    flight.collect(None)
    flight.computed, flight.error = None, None


def _computed(engine: Engine, run: Recomputed, reason: str | None) -> Computed:
    return Computed(engine=engine, forecasts=run.forecasts, failed=run.failed, reason=reason)
