"""Computes rows again, one submission after the other, in parts where the whole doesn't go.

For when a batch failed, or must come from another engine. The engine must have no tickets outstanding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine import Columns, Engine, Forecasts, Slot
from worker.errors import EngineError, FatalEngineError, OutOfDeviceMemoryError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recomputed:
    """float32[rows, horizon, quantiles] in memory of its own. `failed`: row -> the engine's error; those rows are NaN."""

    forecasts: Forecasts
    failed: Mapping[int, str]


def recompute(
    engine: Engine,
    slot: Slot,
    inputs: Columns,
    rows: NDArray[np.intp],
    *,
    poison_rows: int,
    floor_rows: int,
    control: Columns | None,
) -> Recomputed:
    """Forecast `rows` of `inputs` (float32[n, ...] each) with `engine`, by way of its `slot`, which is overwritten.

    What fails is halved until single rows are left that fail by themselves: those are guilty, if the engine can compute
    anything else. `control` is what it then has to prove it with, where no row of the batch does; with None it can't.
    What doesn't fit into the device's memory is halved down to `floor_rows`.

    Raises the engine's `EngineError` if the engine is to blame: more than `poison_rows` rows failed, nothing went, or not
    even `floor_rows` fit (`OutOfDeviceMemoryError`); `FatalEngineError` at once.
    """
    parts = _Parts(engine, slot, inputs, len(rows))
    waiting = [
        range(first, min(first + engine.spec.max_rows, len(rows)))
        for first in range(0, len(rows), engine.spec.max_rows)
    ]
    failed: dict[int, str] = {}
    while waiting:
        places = waiting.pop(0)
        try:
            parts.compute(rows, places)
        except FatalEngineError:
            raise
        except OutOfDeviceMemoryError:
            if len(places) <= floor_rows:
                raise
            waiting[:0] = _halves(places)
        except EngineError as error:
            if len(places) > 1:
                waiting[:0] = _halves(places)
                continue
            failed[places[0]] = str(error)
            if len(failed) > poison_rows:
                raise
            if len(failed) == len(rows) and (control is None or not parts.works(control)):
                raise
    return Recomputed(forecasts=Forecasts(parts.values, engine.spec), failed=failed)


def _halves(places: range) -> list[range]:
    middle = len(places) // 2
    return [places[:middle], places[middle:]]


class _Parts:
    """One result array, filled part by part."""

    def __init__(self, engine: Engine, slot: Slot, inputs: Columns, rows: int) -> None:
        spec = engine.spec
        self.values = np.full((rows, spec.horizon, len(spec.quantiles)), np.nan, np.float32)
        self._engine = engine
        self._slot = slot
        self._inputs = inputs

    def compute(self, rows: NDArray[np.intp], places: range) -> None:
        """Forecast `rows[places]` into `values[places]`. Raises what the engine raises; the slot is the caller's again."""
        chosen = rows[places.start : places.stop]
        for name, column in self._slot.columns.items():
            column[: len(chosen)] = self._inputs[name][chosen]
        self.values[places.start : places.stop] = self._run(len(chosen))

    def works(self, control: Columns) -> bool:
        """Whether the engine computes `control` (float32[rows, ...] each) at all."""
        count = min(len(column) for column in control.values())
        count = min(count, self._engine.spec.max_rows)
        for name, column in self._slot.columns.items():
            column[:count] = control[name][:count]
        try:
            self._run(count)
        except FatalEngineError:
            raise
        except EngineError:
            return False
        return True

    def _run(self, count: int) -> NDArray[np.float32]:
        ticket = self._engine.submit(self._slot, count)
        return self._engine.collect(ticket).values
