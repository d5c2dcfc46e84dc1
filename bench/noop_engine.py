"""An engine that computes nothing: what is left of the worker's time is the data's way to it and from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from worker.engine import EngineSpec, Forecasts, Slot, Ticket

HORIZON = 14
QUANTILES = (0.1, 0.5, 0.9)
INPUTS: Mapping[str, int] = {
    "sales": 30,
    "promo": 30,
    "holiday": 30,
    "temperature": 30,
    "promo_next": 14,
    "holiday_next": 14,
    "temperature_next": 14,
}
"""Everything that a bakery event holds, so that nobody can skip a field."""


def constant_forecast(rows: int) -> NDArray[np.float32]:
    """float32[rows, HORIZON, len(QUANTILES)], ascending along the last axis."""
    return np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32), (rows, HORIZON, len(QUANTILES)))


class NoopEngine:
    """`Engine` that gives a constant. Two slots, as the worker has by default."""

    def __init__(self, max_rows: int) -> None:
        self._spec = EngineSpec(
            inputs=INPUTS,
            horizon=HORIZON,
            quantiles=QUANTILES,
            max_rows=max_rows,
            model="noop",
            version="1",
            precision="fp32",
            digest="0" * 64,
        )
        self._free = [
            Slot(index, {name: np.zeros((max_rows, width), np.float32) for name, width in INPUTS.items()})
            for index in range(2)
        ]
        self._values = constant_forecast(max_rows)
        self._submitted = 0

    @property
    def spec(self) -> EngineSpec:
        """See `Engine.spec`."""
        return self._spec

    def acquire(self) -> Slot | None:
        """See `Engine.acquire`."""
        return self._free.pop() if self._free else None

    def submit(self, slot: Slot, rows: int) -> Ticket:
        """See `Engine.submit`."""
        self._submitted += 1
        return Ticket(slot, rows, self._submitted)

    def wait(self, ticket: Ticket, timeout_s: float) -> bool:  # noqa: ARG002 - it is always there
        """See `Engine.wait`."""
        return True

    def collect(self, ticket: Ticket) -> Forecasts:
        """See `Engine.collect`."""
        return Forecasts(self._values[: ticket.rows], self._spec)

    def release(self, slot: Slot) -> None:
        """See `Engine.release`."""
        self._free.append(slot)

    def close(self) -> None:
        """See `Engine.close`."""
