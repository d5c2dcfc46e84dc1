"""One guard that is shown batches as the worker shows them, and how near they come to its limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bench.guard_cases import Floats, Inputs, Model
from worker.guard import Rule
from worker.guard import faults as impossible
from worker.guard_watch import Guard, Trip
from worker.settings_guard import GuardSettings

BATCHES = (256, 4096)
"""Rows per batch. Small ones are judged while the window fills, large ones at once."""
LIMITS = GuardSettings()
CANARY_DAYS = "canary, days"
"""Key of the canary's other figure: by how many days the forecasts are late or early against those of the version before."""


@dataclass(slots=True)
class Stream:
    """One guard that is shown batches for as long as the data last; what it said, and how near to it it came.

    nearest: rule -> largest figure as a share of its limit.
    """

    model: Model
    guard: Guard = field(init=False)
    trips: Counter[str] = field(default_factory=Counter)
    nearest: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.guard = Guard(LIMITS, {self.model.spec.digest: self.model.reference})

    def show(self, inputs: Inputs, values: Floats, before: Floats | None = None) -> Trip | None:
        """One batch, judged as the worker does it. before: what the version before makes of it, where that is loaded."""
        began_s = time.process_time()
        impossible(values)
        self.seconds_before += time.process_time() - began_s
        began_s = time.process_time()
        faults = self.guard.row_faults(self.model.spec, inputs, values)
        trip = self.guard.watch(self.model.spec, inputs, values, without=sorted(faults))
        if before is not None:
            trip = trip or self._beside(values, before, list(faults))
        self.seconds += time.process_time() - began_s
        self.rows += len(values)
        self.trips.update(str(fault.rule) for fault in faults.values())
        if faults and trip is None:
            trip = self.guard.replaced(self.model.spec, len(values), len(faults))
        if trip is not None:
            self.trips[str(trip.rule)] += 1
        for figure in self.guard.figures():
            self._came_to(str(figure.rule), figure.got / figure.allowed)
        peaks = values[:, :, -1].max(axis=1) / np.maximum(inputs["sales"].max(axis=1), LIMITS.least_sales)
        self._came_to(str(Rule.EXPLOSION), float(np.nan_to_num(peaks).max()) / LIMITS.explosion_factor)
        return trip

    def turn_to(self, model: Model) -> None:
        """From now on the batches are another version's. What was seen of the one before no longer counts."""
        self.model = model
        self.guard.know(model.spec.digest, model.reference)
        self.nearest.clear()
        self.trips.clear()
        self.rows = 0

    def _beside(self, values: Floats, before: Floats, faults: list[int]) -> Trip | None:
        canary = self.guard.canary(self.model.spec)
        places = np.empty(0, np.intp) if canary is None else canary.places(len(values), faults)
        if canary is None or not len(places):
            return None
        trip = self.guard.beside(before[places], values[places])
        wider = max(1.0, (LIMITS.canary_rows / canary.rows) ** 0.5)
        self._came_to(str(Rule.CANARY), canary.difference / (LIMITS.canary_difference * wider))
        self._came_to(CANARY_DAYS, abs(canary.lag.days or 0.0) / min(LIMITS.canary_days * wider, 0.5))
        return trip

    def _came_to(self, rule: str, share: float) -> None:
        self.nearest[rule] = max(self.nearest.get(rule, -9.0), share)


def batches(inputs: Inputs, values: Floats, rows: int) -> Iterator[tuple[Inputs, Floats]]:
    """Pieces of so many rows."""
    for at in range(0, len(values), rows):
        yield {name: column[at : at + rows] for name, column in inputs.items()}, values[at : at + rows]
