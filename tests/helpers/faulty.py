"""An engine that fails as it is told: by what is in the rows, by how many there are, or altogether."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.helpers.engines import FakeEngine
from worker.engine import Forecasts, Slot, Ticket
from worker.errors import EngineError, FatalEngineError, OutOfDeviceMemoryError


class FaultyEngine(FakeEngine):
    """`FakeEngine` whose forecasts depend on its attributes and on each row's first number of `sales`, its mark.

    poison: marks whose rows make every batch fail that they are in. spoilt: marks whose forecasts are NaN. scale: of all
    forecasts. dead: every batch fails. lost: and the engine with it. memory_rows: larger batches don't fit.
    """

    poison: frozenset[float] = frozenset()
    spoilt: frozenset[float] = frozenset()
    scale = 1.0
    dead = False
    lost = False
    memory_rows: int | None = None
    shape: tuple[int, ...] | None = None

    def submit(self, slot: Slot, rows: int) -> Ticket:
        if self.memory_rows is not None and rows > self.memory_rows:
            raise OutOfDeviceMemoryError(f"{rows} rows need more than {self.memory_rows} rows' memory")
        return super().submit(slot, rows)

    def collect(self, ticket: Ticket) -> Forecasts:
        forecasts = super().collect(ticket)
        marks: NDArray[np.float32] = ticket.slot.columns["sales"][: ticket.rows, 0]
        if self.lost:
            raise FatalEngineError("the device is gone")
        if self.dead:
            raise EngineError("nothing works")
        if any(mark in self.poison for mark in marks.tolist()):
            raise EngineError("one of these rows can't be computed")
        forecasts.values[np.isin(marks, list(self.spoilt))] = np.nan
        forecasts.values[:] *= self.scale
        if self.shape is not None:
            return Forecasts(np.zeros(self.shape, np.float32), forecasts.spec)
        return forecasts
