"""False alarms and detection of the guard on real data: `python -m bench guard`. Writes bench/results/guard.json.

Every origin of FreshRetailNet that events can be made for (all series, the LSTM; TSMixer, its backup, on every eighth) and of
the bakery chain (all days; LSTM and smoother) goes through the worker's own `Guard` at default settings: in the order
of the series and shuffled, in large batches and small ones. Then the same forecasts, made wrong in known ways.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.guard_cases import DISTORTIONS, Floats, Inputs, Model, broken_int8, swapped, swaps
from bench.job import ROOT
from bench.machine import machine
from demo import bakery, freshretailnet
from demo.series import SeriesSet
from worker.guard import Rule
from worker.guard import faults as impossible
from worker.guard_watch import Guard, Trip
from worker.settings_guard import GuardSettings

RESULT = ROOT / "bench" / "results" / "guard.json"
BATCHES = (256, 4096)
"""Rows per batch. Small ones are judged while the window fills, large ones at once."""
LIMITS = GuardSettings()
SWAP_ROWS = 8192
DETECTION_STARTS = 8
"""Places in each day's rows where an engine begins to be wrong."""


@dataclass(slots=True)
class Stream:
    """One guard that is shown batches for as long as the data last; what it said, and how near to it it came."""

    model: Model
    guard: Guard = field(init=False)
    trips: Counter[str] = field(default_factory=Counter)
    nearest: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    seconds_before: float = 0.0

    def __post_init__(self) -> None:
        self.guard = Guard(LIMITS, {self.model.spec.digest: self.model.reference})

    def show(self, inputs: Inputs, values: Floats) -> Trip | None:
        """One batch, judged as the worker does it."""
        began_s = time.perf_counter()
        impossible(values)
        self.seconds_before += time.perf_counter() - began_s
        began_s = time.perf_counter()
        faults = self.guard.row_faults(self.model.spec, inputs, values)
        trip = self.guard.watch(self.model.spec, inputs, values, without=sorted(faults))
        self.seconds += time.perf_counter() - began_s
        self.rows += len(values)
        self.trips.update(str(fault.rule) for fault in faults.values())
        if faults and trip is None:
            trip = self.guard.replaced(self.model.spec, len(values), len(faults))
        if trip is not None:
            self.trips[str(trip.rule)] += 1
        for figure in self.guard.figures():
            self.nearest[figure.rule] = max(self.nearest.get(figure.rule, -9.0), figure.got / figure.allowed)
        peaks = values[:, :, -1].max(axis=1) / np.maximum(inputs["sales"].max(axis=1), LIMITS.least_sales)
        nearest = self.nearest.get(Rule.EXPLOSION, 0.0)
        self.nearest[Rule.EXPLOSION] = max(nearest, float(np.nan_to_num(peaks).max()) / LIMITS.explosion_factor)
        return trip


def batches(inputs: Inputs, values: Floats, rows: int) -> Iterator[tuple[Inputs, Floats]]:
    """Pieces of so many rows."""
    for at in range(0, len(values), rows):
        yield {name: column[at : at + rows] for name, column in inputs.items()}, values[at : at + rows]


def rows_until_trip(model: Model, inputs: Inputs, values: Floats, rows: int) -> tuple[int, str] | None:
    """Rows shown to a fresh guard until it tripped, in batches of `rows`, and the rule; None if it never did."""
    stream = Stream(model)
    for some, forecasts in batches(inputs, values, rows):
        trip = stream.show(some, forecasts)
        if trip is not None:
            return stream.rows, str(trip.rule)
    return None


class Detections:
    """How soon each way of being wrong is found, over all the places where it was tried."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[int, str] | None]] = {}

    def try_all(self, model: Model, inputs: Inputs, values: Floats) -> None:
        """Every distortion, from several places of these rows on."""
        for start in np.linspace(0, max(len(values) - SWAP_ROWS, 0), DETECTION_STARTS).astype(int).tolist():
            part = {name: column[start : start + SWAP_ROWS] for name, column in inputs.items()}
            for name, distort in DISTORTIONS.items():
                self.add(name, model, part, distort(values[start : start + SWAP_ROWS]))

    def add(self, name: str, model: Model, inputs: Inputs, values: Floats) -> None:
        """One case, in small batches: the row counts are as fine as these."""
        self._found.setdefault(name, []).append(rows_until_trip(model, inputs, values, BATCHES[0]))

    def result(self) -> dict[str, Any]:
        """Case -> tries, found, rows (median and most) and the rules that found it."""
        return {
            name: {
                "tries": len(tries),
                "found": len(found := [each for each in tries if each is not None]),
                "rows_median": float(np.median([rows for rows, _ in found])) if found else None,
                "rows_most": max((rows for rows, _ in found), default=None),
                "rules": dict(Counter(rule for _, rule in found)),
            }
            for name, tries in self._found.items()
        }


def false_alarms(streams: dict[str, Stream]) -> dict[str, Any]:
    """Way of showing the rows -> rows, trips by rule, and the nearest that each rule came to its limit (1: it trips)."""
    return {
        name: {
            "rows": stream.rows,
            "trips": dict(stream.trips),
            "nearest": {str(rule): round(share, 3) for rule, share in stream.nearest.items()},
            "us_per_row": round(stream.seconds / max(stream.rows, 1) * 1e6, 3),
            "us_per_row_single_rules": round(stream.seconds_before / max(stream.rows, 1) * 1e6, 3),
        }
        for name, stream in streams.items()
    }


def forecast_of(model: Model, inputs: Inputs, day: int, kept: Path | None) -> Floats:
    """The forecasts of a day; from the folder `kept` if an earlier run of the same model left them there."""
    path = None if kept is None else kept / f"{model.spec.digest[:16]}-{day}.npy"
    if path is None or not path.is_file():
        values = model.forecast(inputs)
        if path is not None:
            np.save(path, values)
        return values
    stored: Floats = np.load(path)
    return stored


def through(
    model: Model, series: SeriesSet, days: Sequence[int], detections: Detections | None, kept: Path | None = None
) -> dict[str, Any]:
    """All series of `days` through the guard in every order and batch size."""
    random = np.random.default_rng(0)
    orders = ("in order", "shuffled")
    streams = {f"{order}, batches of {rows}": Stream(model) for order in orders for rows in BATCHES}
    for day in days:
        inputs = model.inputs(series, day)
        values = forecast_of(model, inputs, day, kept)
        for order in orders:
            if order == "shuffled":
                places = random.permutation(len(values))
                inputs, values = {name: column[places] for name, column in inputs.items()}, values[places]
            elif detections is not None:
                detections.try_all(model, inputs, values)
            for rows in BATCHES:
                for some, forecasts in batches(inputs, values, rows):
                    streams[f"{order}, batches of {rows}"].show(some, forecasts)
        print(f"{model.spec.model}: day {day}", flush=True)
    return {"days": len(days), "rows": len(days) * len(series), "streams": false_alarms(streams)}


def wrong_inside(model: Model, folder: Path, series: SeriesSet, days: Sequence[int], detections: Detections) -> None:
    """Wrongs that need the graph to run again: swapped covariates, broken INT8 scales."""
    for day in days:
        inputs = {name: column[:SWAP_ROWS] for name, column in model.inputs(series, day).items()}
        for first, second in swaps():
            moved = model.forecast(swapped(inputs, first, second))
            detections.add(f"{first} and {second} swapped", model, inputs, moved)
        for name, broken in broken_int8(folder, inputs):
            detections.add(name, model, inputs, broken.forecast(inputs))


def jumps(old: Model, new: Model, series: SeriesSet, days: Sequence[int]) -> dict[str, Any]:
    """A sound version follows another: how near the jump comes to its limit, both ways."""
    nearest, trips = 0.0, 0
    for day in days:
        window = {}
        for model in (old, new):
            inputs = {name: column[:SWAP_ROWS] for name, column in model.inputs(series, day).items()}
            window[model.spec.digest] = (inputs, model.forecast(inputs))
        for first, second in ((old, new), (new, old)):
            guard = Guard(LIMITS, {each.spec.digest: each.reference for each in (old, new)})
            for model in (first, second):
                for some, forecasts in batches(*window[model.spec.digest], BATCHES[0]):
                    trips += guard.watch(model.spec, some, forecasts) is not None
                    shares = [each.got / each.allowed for each in guard.figures() if each.rule is Rule.JUMP]
                    nearest = max([nearest, *shares])
    return {"swaps": 2 * len(days), "trips": trips, "nearest": round(nearest, 3)}


def measured(every: int, kept: Path | None) -> dict[str, Any]:
    """Everything, as it stands in the result file."""
    models = ROOT / "models"
    result: dict[str, Any] = {"machine": _machine(), "settings": LIMITS.model_dump(), "every": every, "data": {}}
    fresh, found = freshretailnet.load(), Detections()
    days = fresh.as_of_dates(10**6)[::every]
    lstm, tsmixer = (Model.load(models / f"freshretailnet-{name}") for name in ("lstm", "tsmixer"))
    result["data"]["freshretailnet-lstm"] = through(lstm, fresh, days, found, kept)
    result["data"]["freshretailnet-tsmixer"] = through(tsmixer, fresh, days[::8], None, kept)
    wrong_inside(lstm, models / "freshretailnet-lstm", fresh, days[::8], found)
    result["jumps"] = jumps(lstm, tsmixer, fresh, days[::8])
    chain, bakeries = bakery.load(), Detections()
    for name in ("lstm", "smoother"):
        model = Model.load(models / f"bakery-{name}")
        result["data"][f"bakery-{name}"] = through(model, chain, chain.as_of_dates(10**6), None)
    smoother = Model.load(models / "bakery-smoother")
    weeks = [chain.as_of_dates(10**6)[at : at + 40] for at in range(0, 1160, 80)]
    for week in weeks:
        inputs = [smoother.inputs(chain, day) for day in week]
        joined = {key: np.concatenate([each[key] for each in inputs]) for key in inputs[0]}
        values = smoother.forecast(joined)
        for case, distort in DISTORTIONS.items():
            bakeries.add(case, smoother, joined, distort(values))
    result["detection"] = {"freshretailnet-lstm": found.result(), "bakery-smoother": bakeries.result()}
    return result


def _machine() -> dict[str, object]:
    whole = machine("", ())
    return {name: whole[name] for name in ("cpu", "cores", "python", "libraries")}


def main(arguments: Sequence[str]) -> int:
    """Measure, write the result, and say whether there were false alarms (exit 1)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench guard", description="False alarms and detection of the guard."
    )
    parser.add_argument("--every", type=int, default=1, help="every n-th origin of FreshRetailNet only")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep FreshRetailNet's forecasts there for the next run"
    )
    parser.add_argument("--result", type=Path, default=RESULT, help="where to write it")
    chosen = parser.parse_args(arguments)
    result = measured(chosen.every, chosen.keep)
    chosen.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    trips = [stream["trips"] for data in result["data"].values() for stream in data["streams"].values()]
    return 1 if any(trips) or result["jumps"]["trips"] else 0
