"""How soon the guard finds forecasts that are wrong: from a worker's start on, and after a swap from a sound version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.guard_cases import (
    DISTORTIONS,
    WITHOUT_WEEKDAYS,
    Floats,
    Inputs,
    Model,
    broken_int8,
    calendars,
    golden_share,
    some_rows,
    swapped,
    swaps,
    without_weekdays,
)
from bench.guard_stream import BATCHES, LIMITS, Stream, batches
from worker.guard_canary import Canary

ROWS = 8192
"""Rows of each try."""
PLACES = 8
"""Places in each day's rows where an engine begins to be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Before:
    """The sound version that served until then, and its forecasts: of other rows, and of the same ones."""

    model: Model
    inputs: Inputs
    values: Floats
    same_rows: Floats


@dataclass(slots=True)
class Tries:
    """All tries of one case: rows until it was found and by which rule (None: never), and how near each rule came."""

    found: list[tuple[int, str] | None] = field(default_factory=list)
    nearest: list[dict[str, float]] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """Tries, found, rows (median and most), the rules that found it, and by rule how near those came that weren't found."""
        found = [each for each in self.found if each is not None]
        missed = [near for near, each in zip(self.nearest, self.found, strict=True) if each is None]
        rules = sorted({rule for each in missed for rule in each})
        spans = {rule: [each[rule] for each in missed if rule in each] for rule in rules}
        return {
            "tries": len(self.found),
            "found": len(found),
            "rows_median": float(np.median([rows for rows, _ in found])) if found else None,
            "rows_most": max((rows for rows, _ in found), default=None),
            "rules": dict(Counter(rule for _, rule in found)),
            "missed": {rule: [round(min(span), 3), round(max(span), 3)] for rule, span in spans.items()},
        }


class Detections:
    """How soon each way of being wrong is found, over all the places where it was tried."""

    def __init__(self) -> None:
        self._tries: dict[str, Tries] = {}

    def try_all(self, model: Model, inputs: Inputs, values: Floats) -> None:
        """Every distortion, and none, from several places of these rows on."""
        for start in _places(len(values)):
            rows = slice(start, start + ROWS)
            part = some_rows(inputs, rows)
            for name, distort in DISTORTIONS.items():
                self.add(name, model, part, distort(values[rows]))
            self.add(WITHOUT_WEEKDAYS, model, without_weekdays(part), values[rows])

    def try_swaps(self, old: Model, new: Model, inputs: Inputs, old_values: Floats, new_values: Floats) -> None:
        """The same distortions, in a worker where `old` served the rows before."""
        half = min(ROWS, len(new_values)) // 2
        for start in _places(len(new_values)):
            first, second = slice(start, start + half), slice(start + half, start + 2 * half)
            before = Before(
                model=old,
                inputs=some_rows(inputs, first),
                values=old_values[first],
                same_rows=old_values[second],
            )
            for name, distort in DISTORTIONS.items():
                self.add(name, new, some_rows(inputs, second), distort(new_values[second]), before)

    def add(self, name: str, model: Model, inputs: Inputs, values: Floats, before: Before | None = None) -> None:
        """One try, in small batches: the row counts are as fine as these."""
        tries = self._tries.setdefault(name, Tries())
        stream = Stream(model) if before is None else Stream(before.model)
        if before is not None:
            for some, forecasts in batches(before.inputs, before.values, BATCHES[0]):
                stream.show(some, forecasts)
            stream.turn_to(model)
        tries.found.append(_until_found(stream, inputs, values, before))
        tries.nearest.append(dict(stream.nearest))

    def result(self) -> dict[str, Any]:
        """Case -> `Tries.result`."""
        return {name: tries.result() for name, tries in self._tries.items()}


def _places(rows: int) -> list[int]:
    return sorted({int(start) for start in np.linspace(0, max(rows - ROWS, 0), PLACES)})


def _until_found(stream: Stream, inputs: Inputs, values: Floats, before: Before | None) -> tuple[int, str] | None:
    """Rows until the guard tripped, in small batches, and the rule; None if it never did."""
    for some, forecasts in batches(inputs, values, BATCHES[0]):
        at = stream.rows
        trip = stream.show(some, forecasts, None if before is None else before.same_rows[at : at + len(forecasts)])
        if trip is not None:
            return stream.rows, str(trip.rule)
    return None


class Wrongs:
    """Wrongs that need the graph to run again: swapped covariates, a wrong calendar, broken INT8 scales. Tried at a start and after a swap.

    errors: case -> one entry for each day: WAPE against what was sold as a share of FP32's more (0.02: two percent worse),
    difference from FP32, and the golden batch's largest difference as a share of what an INT8 plan may have.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self.errors: dict[str, list[dict[str, float]]] = {}

    def try_day(
        self, inputs: Inputs, sound: Floats, sold: Floats, before: Before, started: Detections, swapped_in: Detections
    ) -> None:
        """Every case on the rows of one day. sold: float32[rows, horizon], what came of it."""
        cases = [(f"{a} and {b} swapped", self._model, swapped(inputs, a, b)) for a, b in swaps()]
        cases += [(name, self._model, given) for name, given in calendars(inputs)]
        cases += [(name, broken, inputs) for name, broken in broken_int8(self._folder, inputs)]
        for name, model, given in cases:
            values = model.forecast(given)
            started.add(name, self._model, inputs, values)
            swapped_in.add(name, self._model, inputs, values, before)
            error = {"wape_growth": _wape(values, sold) / _wape(sound, sold) - 1, "apart": _apart(values, sound)}
            if given is inputs:
                error["golden"] = golden_share(model, self._folder)
            self.errors.setdefault(name, []).append({key: round(value, 4) for key, value in error.items()})


def _wape(values: Floats, sold: Floats) -> float:
    return float(np.abs(values[:, :, values.shape[2] // 2] - sold).sum(dtype=np.float64) / sold.sum(dtype=np.float64))


def _apart(values: Floats, sound: Floats) -> float:
    middle = sound.shape[2] // 2
    apart = np.abs(values[:, :, middle] - sound[:, :, middle]).sum(dtype=np.float64)
    return float(apart / sound[:, :, middle].sum(dtype=np.float64))


def swap_alarms(
    pairs: Sequence[tuple[Model, Model]], shown: Sequence[tuple[Inputs, dict[str, Floats]]]
) -> dict[str, Any]:
    """A sound version follows another, on each of `shown` (inputs, digest -> forecasts): trips, and how near it was to them."""
    trips: Counter[str] = Counter()
    nearest: dict[str, float] = {}
    for inputs, forecasts in shown:
        half = len(next(iter(inputs.values()))) // 2
        first, second = slice(0, half), slice(half, None)
        for old, new in pairs:
            stream = Stream(old)
            for some, values in batches(some_rows(inputs, first), forecasts[old.spec.digest][first], BATCHES[0]):
                stream.show(some, values)
            stream.turn_to(new)
            theirs = forecasts[old.spec.digest][second]
            for some, values in batches(some_rows(inputs, second), forecasts[new.spec.digest][second], BATCHES[0]):
                stream.show(some, values, theirs[stream.rows : stream.rows + len(values)])
            trips += stream.trips
            for rule, share in stream.nearest.items():
                nearest[rule] = max(share, nearest.get(rule, -9.0))
    return {
        "swaps": len(pairs) * len(shown),
        "trips": dict(trips),
        "nearest": {rule: round(share, 3) for rule, share in nearest.items()},
    }


def canary_alarms(pairs: Sequence[tuple[Floats, Floats]]) -> dict[str, Any]:
    """Forecasts of two sound models, compared as the canary does, everywhere: by each 256 rows in turn."""
    shares: list[tuple[float, float]] = []
    for one, other in pairs:
        for at in range(0, len(one) - LIMITS.canary_rows + 1, LIMITS.canary_rows // 2):
            canary, rows = Canary("", LIMITS.canary_rows), slice(at, at + LIMITS.canary_rows)
            canary.add(one[rows], other[rows], LIMITS.least_mean)
            days = abs(canary.lag.days or 0.0) / LIMITS.canary_days
            shares.append((canary.difference / LIMITS.canary_difference, days))
    return {
        "comparisons": len(shares),
        "trips": sum(max(each) > 1 for each in shares),
        "difference": round(max(each[0] for each in shares), 3),
        "days": round(max(each[1] for each in shares), 3),
    }
