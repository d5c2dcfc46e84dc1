"""From a sealed batch to forecasts that may be published: submit, collect, judge, and compute again what can't be used.

Rules of this file:

- What is published has passed the guard, whichever engine computed it.
- A row that one engine can't forecast is forecast by another and says so; a row that none can is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.batching import Batch
from worker.checked import Checked, Part
from worker.deadline import Clock
from worker.engine import Columns, Engine, Forecasts
from worker.errors import AbortableError, EngineError, FatalEngineError, OutOfDeviceMemoryError
from worker.flight import Computed, Flight
from worker.guard import Fault, Rule
from worker.guard_watch import Guard, Trip
from worker.hotswap import EngineSlot
from worker.recompute import Recomputed
from worker.records import Reason, Rejection
from worker.statistics import Stage, Tallies
from worker.takeover import Takeover

log = structlog.get_logger(__name__)


class Forecasting:
    """Runs batches on the engine that serves, and on others where that one fails.

    Args:
        takeover: who computes.
        guard: judges what they compute.
        without_backup: what to do when the numbers aren't trusted and there is no backup: stop, or publish and count.
    """

    def __init__(
        self,
        *,
        takeover: Takeover,
        guard: Guard,
        without_backup: Literal["stop", "publish"],
        tallies: Tallies,
        clock: Clock,
    ) -> None:
        self._takeover = takeover
        self._guard = guard
        self._without_backup = without_backup
        self._tallies = tallies
        self._clock = clock
        self._collected_s = float("-inf")

    @property
    def engine(self) -> Engine:
        """What computes the next batch."""
        return self._takeover.engine

    @property
    def engines(self) -> EngineSlot:
        """The serving engine and its backup."""
        return self._takeover.engines

    @property
    def held(self) -> str | None:
        """Why nothing may be computed now; None: all is well."""
        return self._takeover.held

    def turn_over(self, used: Callable[[Engine], bool]) -> str | None:
        """Between two batches: see `EngineSlot.turn_over`."""
        return self._takeover.turn_over(used)

    def distrusts(self, engine: Engine) -> bool:
        """Whether nothing that `engine` computed may be committed any more."""
        return self._takeover.distrusts(engine)

    def is_unsure_of(self, engine: Engine) -> bool:
        """Whether `engine` computes since so few rows that the guard can't tell yet whether they are as usual."""
        return engine is self.engine and self._guard.is_unsure_of(engine.spec)

    def tend(self, flights: Sequence[Flight]) -> None:
        """Between batches: see whether a device that ran out of memory computes again. Raises `FatalEngineError`."""
        self._takeover.tend(flights)

    def submit(self, batch: Batch, engine: Engine) -> Flight:
        """Hand `batch`, whose slot is of `engine`, to it; or to what took over meanwhile.

        Raises `FatalEngineError` if the engine is lost, `EngineError` if nothing computes.
        """
        began_s = self._clock()
        flight = Flight(batch=batch, engine=engine, submitted_s=began_s)
        if batch.slot is None:
            return flight
        if self._takeover.is_aside(engine):
            flight.computed = self._takeover.elsewhere(flight, ())
            return flight
        try:
            flight.ticket = engine.submit(batch.slot, batch.rows)
        except FatalEngineError:
            raise
        except EngineError as error:
            flight.error = error
        flight.submit_s = self._clock() - began_s
        return flight

    def checked(self, flight: Flight, behind: Sequence[Flight]) -> Checked | None:
        """The forecasts of the oldest flight, fit to be published; None if it has no rows. `behind`: the younger flights.

        Raises `FatalEngineError`; `EngineError` if no engine computes; `AbortableError` if the batch must be read again, or
        if its forecasts aren't trusted and nothing else can make them now.
        """
        if flight.batch.slot is None:
            return None
        if flight.computed is None:
            flight.computed = self._compute(flight, behind)
        self._tallies.stage(Stage.ENGINE, self._clock() - flight.submitted_s)
        began_s = self._clock()
        checked = self._judged(flight, flight.computed, behind)
        self._tallies.stage(Stage.GUARD, self._clock() - began_s)
        computed = flight.computed
        if computed.reason is None and not computed.failed:
            self.engines.sample(computed.engine, flight.columns(), computed.forecasts.values)
        return checked

    def _compute(self, flight: Flight, behind: Sequence[Flight]) -> Computed:
        """Collect; where that fails compute the batch again, in parts if need be, and else on another engine."""
        started_s = max(
            flight.submitted_s, self._collected_s
        )  # it can't have begun later, so it took at least this long
        began_s = self._clock()
        flight.collect(self._takeover.why(flight.engine))
        self._collected_s = self._clock()
        if flight.computed is not None:
            engine_s = flight.submit_s + max(0.0, flight.busy_until_s - started_s) + self._collected_s - began_s
            if flight.engine is self.engine:
                trip = self._guard.took(flight.engine.spec, flight.batch.rows, engine_s)
                if trip is not None:
                    self._takeover.leave_slow(trip)
            return flight.computed
        error = flight.error
        log.warning("a batch failed in the engine; computing it again", rows=flight.batch.rows, reason=str(error))
        self._tallies.engine_failed("out_of_memory" if isinstance(error, OutOfDeviceMemoryError) else "error")
        return self._again(flight, behind)

    def _again(self, flight: Flight, behind: Sequence[Flight]) -> Computed:
        try:
            return self._takeover.again(flight, behind)
        except FatalEngineError:
            raise
        except EngineError as error:
            full = isinstance(error, OutOfDeviceMemoryError)
            if not (full and self._takeover.stand_in(flight.engine, behind)):
                self._takeover.leave(flight.engine, Trip(Rule.ENGINE_ERROR, str(error)), behind, error)
        return self._takeover.elsewhere(flight, behind)

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judged(self, flight: Flight, computed: Computed, behind: Sequence[Flight]) -> Checked:
        """What the guard lets pass."""
        spec, values = computed.forecasts.spec, computed.forecasts.values
        expected = (flight.batch.rows, spec.horizon, len(spec.quantiles))
        if values.shape != expected:
            trip = Trip(Rule.WRONG_SHAPE, f"forecast shape: got {values.shape}, expected {expected}")
            return self._from_another(flight, computed, behind, trip, EngineError(trip.detail))
        columns = flight.columns()
        faults = self._guard.row_faults(spec, columns, values)
        faults |= {row: Fault(row, Rule.ENGINE_ERROR, detail) for row, detail in computed.failed.items()}
        if computed.engine is self.engine:  # the last batches of an engine that was left say nothing of the next one
            trip_or_none = self._guard.watch(spec, columns, values, without=sorted(faults))
            trip_or_none = trip_or_none or self._second_opinion(flight, computed, behind, faults)
            if trip_or_none is not None and self._must_leave(computed.engine, trip_or_none):
                return self._from_another(flight, computed, behind, trip_or_none)
        if faults:
            return self._mended(flight, computed, behind, faults)
        part = Part(rows=None, forecasts=computed.forecasts, fallback_reason=computed.reason)
        return Checked(parts=[part], rejections=[])

    def _second_opinion(
        self, flight: Flight, computed: Computed, behind: Sequence[Flight], faults: dict[int, Fault]
    ) -> Trip | None:
        """The first rows of a new version, held against what the version before makes of them, if that is still there."""
        spec = computed.forecasts.spec
        canary, before = self._guard.canary(spec), self.engines.backup
        if canary is None or before is None or before.spec.digest != canary.before:
            return None
        if not before.spec.inputs.items() <= spec.inputs.items():
            self._guard.forget_canary()
            return None
        rows = canary.places(flight.batch.rows, faults)
        if not len(rows):
            return None
        try:
            run = self._takeover.rows(before, flight.columns(), rows, behind)
        except FatalEngineError:
            raise
        except AbortableError:  # no slot is free; the next batch's rows will do
            return None
        except EngineError as error:  # a new version isn't held up because the old one fails
            log.warning("the version before can't be compared with", rows=len(rows), reason=str(error))
            self._guard.forget_canary()
            return None
        return self._guard.beside(run.forecasts.values, computed.forecasts.values[rows])

    def _must_leave(self, engine: Engine, trip: Trip) -> bool:
        if self._takeover.can_leave(engine):
            return True
        self._takeover.await_backup(f"{trip.rule}: {trip.detail}")
        if self._without_backup == "stop":
            return True
        self._tallies.guard_tripped(trip.rule)
        return False

    def _from_another(
        self,
        flight: Flight,
        computed: Computed,
        behind: Sequence[Flight],
        trip: Trip,
        error: EngineError | None = None,
    ) -> Checked:
        """The same batch by the engine that takes over. What that one makes is judged like any other."""
        self._takeover.leave(computed.engine, trip, behind, error)
        flight.computed = self._takeover.elsewhere(flight, behind)
        return self._judged(flight, flight.computed, behind)

    def _mended(
        self, flight: Flight, computed: Computed, behind: Sequence[Flight], faults: dict[int, Fault]
    ) -> Checked:
        """The rows in `faults` by another engine, the others as they are."""
        rows = np.array(sorted(faults), np.intp)
        if self._takeover.other_than(computed.engine) is None:
            self._takeover.await_backup(faults[int(rows[0])].detail)
        for fault in faults.values():
            self._tallies.guard_tripped(fault.rule)
        run, refused = self._by_another(computed.engine, flight.copied_inputs(), rows, behind)
        saved = np.array([place for place in range(len(rows)) if place not in refused], np.intp)
        if computed.engine is self.engine:
            trip = self._guard.replaced(computed.forecasts.spec, flight.batch.rows, len(saved))
            if trip is not None:
                return self._from_another(flight, computed, behind, trip)
        parts = [] if len(rows) == flight.batch.rows else [_without(computed, rows)]
        for rule in dict.fromkeys(faults[row].rule for row in rows[saved].tolist()):
            places = np.array([place for place in saved.tolist() if faults[int(rows[place])].rule is rule], np.intp)
            assert run is not None  # noqa: S101 - it has saved rows
            forecasts = Forecasts(run.forecasts.values[places], run.forecasts.spec)
            parts.append(Part(rows=rows[places], forecasts=forecasts, fallback_reason=rule.fallback_reason))
        lost = [(int(rows[place]), other) for place, other in sorted(refused.items())]
        return Checked(
            parts=parts, rejections=[(row, _rejection(flight.batch, faults[row], other)) for row, other in lost]
        )

    def _by_another(
        self, engine: Engine, inputs: Columns, rows: NDArray[np.intp], behind: Sequence[Flight]
    ) -> tuple[Recomputed | None, dict[int, str]]:
        """`rows` by another engine than `engine`, and place in `rows` -> why that gave nothing that may leave either."""
        other = self._takeover.other_than(engine)
        if other is None:
            return None, dict.fromkeys(range(len(rows)), "there is no backup")
        try:
            run = self._takeover.rows(other, inputs, rows, behind)
        except FatalEngineError:
            raise
        except EngineError as error:
            log.warning("the backup failed, too", rows=len(rows), reason=str(error))
            return None, dict.fromkeys(range(len(rows)), f"backup: {error}")
        chosen = {name: column[rows] for name, column in inputs.items()}
        faults = self._guard.row_faults(run.forecasts.spec, chosen, run.forecasts.values)
        refused = {place: fault.detail for place, fault in faults.items()} | dict(run.failed)
        return run, {place: f"backup: {detail}" for place, detail in refused.items()}


def _without(computed: Computed, rows: NDArray[np.intp]) -> Part:
    """All rows but `rows`."""
    values = computed.forecasts.values
    kept = np.delete(np.arange(len(values)), rows)
    return Part(rows=kept, forecasts=Forecasts(values[kept], computed.forecasts.spec), fallback_reason=computed.reason)


def _rejection(batch: Batch, fault: Fault, other: str) -> Rejection:
    reason = Reason.ENGINE_FAILED if fault.rule is Rule.ENGINE_ERROR else Reason.BAD_FORECAST
    return Rejection(record=batch.record(fault.row), reason=reason, detail=f"{fault.detail}; {other}")
