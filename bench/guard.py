"""False alarms and detection of the guard on real data: `python -m bench guard`. Writes bench/results/guard.json.

Every origin of FreshRetailNet that events can be made for (all series; Transformer, LSTM and TSMixer) and of the bakery chain (all days; LSTM
and smoother) goes through the worker's own `Guard` at default settings: in the order of the series and shuffled, in large
batches and small ones. Then the same forecasts, made wrong in known ways: from the start of a worker on, and after a swap from
a sound version of another kind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.guard_cases import CONTROLS, DISTORTIONS, Floats, Inputs, Model, some_rows
from bench.guard_detection import ROWS, Before, Detections, Wrongs, canary_alarms, swap_alarms
from bench.guard_stream import BATCHES, LIMITS, Stream, batches
from bench.job import ROOT
from bench.machine import machine
from demo import bakery, freshretailnet
from demo.series import SeriesSet

RESULT = ROOT / "bench" / "results" / "guard.json"
WEEKS_DAYS = 40
"""Days of the bakery chain that make one try: 105 rows each."""


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


def forecast_of(model: Model, inputs: Inputs, day: int, kept: Path) -> Floats:
    """The forecasts of a day; from the folder `kept` if an earlier call with the same model left them there."""
    path = kept / f"{model.spec.digest[:16]}-{day}.npy"
    if not path.is_file():
        np.save(path, model.forecast(inputs))
    stored: Floats = np.load(path)
    return stored


def through(
    model: Model,
    series: SeriesSet,
    days: Sequence[int],
    started: Detections | None,
    kept: Path,
    swapped: Detections | None = None,
) -> dict[str, Any]:
    """All series of `days` through the guard in every order and batch size, and made wrong from a start or a swap on."""
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
            else:
                if started is not None:
                    started.try_all(model, inputs, values)
                if swapped is not None:
                    swapped.try_swaps(model, model.renamed(), inputs, values, values)
            for rows in BATCHES:
                for some, forecasts in batches(inputs, values, rows):
                    streams[f"{order}, batches of {rows}"].show(some, forecasts)
        print(f"{model.spec.model}: day {day}", flush=True)
    return {"days": len(days), "rows": len(days) * len(series), "streams": false_alarms(streams)}


def fresh_results(every: int, kept: Path) -> dict[str, Any]:
    """FreshRetailNet-50K: the Transformer that serves, its backup the LSTM, and TSMixer, with which that is swapped."""
    models, fresh = ROOT / "models", freshretailnet.load()
    transformer, lstm, tsmixer = (
        Model.load(models / f"freshretailnet-{name}") for name in ("transformer", "lstm", "tsmixer")
    )
    days, found, after_itself, after_swap = fresh.as_of_dates(10**6)[::every], Detections(), Detections(), Detections()
    few = sorted({*days[::8], *days[2:3]})
    data = {
        "freshretailnet-transformer": through(transformer, fresh, days, None, kept),
        "freshretailnet-lstm": through(lstm, fresh, days, found, kept, after_itself),
        "freshretailnet-tsmixer": through(tsmixer, fresh, few, None, kept),
    }
    wrongs, shown, both = Wrongs(lstm, models / "freshretailnet-lstm"), [], []
    for day in few:
        inputs = lstm.inputs(fresh, day)
        new, old = forecast_of(lstm, inputs, day, kept), forecast_of(tsmixer, tsmixer.inputs(fresh, day), day, kept)
        after_swap.try_swaps(tsmixer, lstm, inputs, old, new)
        both.append((old, new))
        part, later = some_rows(inputs, slice(ROWS)), slice(ROWS, 2 * ROWS)
        shown.append((part, {lstm.spec.digest: new[:ROWS], tsmixer.spec.digest: old[:ROWS]}))
        if day in days[::8]:
            before = Before(model=tsmixer, inputs=some_rows(inputs, later), values=old[later], same_rows=old[:ROWS])
            wrongs.try_day(part, new[:ROWS], fresh.actuals(day)[:ROWS], before, found, after_swap)
        print(f"swaps: day {day}", flush=True)
    return {
        "data": data,
        "detection": found.result(),
        "after_swap": {
            "freshretailnet-lstm after itself": after_itself.result(),
            "freshretailnet-lstm after freshretailnet-tsmixer": after_swap.result(),
        },
        "errors": wrongs.errors,
        "swaps": swap_alarms([(lstm, tsmixer), (tsmixer, lstm)], shown) | {"everywhere": canary_alarms(both)},
    }


def bakery_results(kept: Path) -> dict[str, Any]:
    """The bakery chain: LSTM and smoother, the two kinds of model that differ most."""
    chain = bakery.load()
    lstm, smoother = (Model.load(ROOT / "models" / f"bakery-{name}") for name in ("lstm", "smoother"))
    days, found, after_swap, shown = chain.as_of_dates(10**6), Detections(), Detections(), []
    data = {model.spec.model: through(model, chain, days, None, kept) for model in (lstm, smoother)}

    def together(model: Model, some: Sequence[int]) -> Floats:
        return np.concatenate([forecast_of(model, {}, day, kept) for day in some])

    for at in range(0, len(days) - WEEKS_DAYS, 2 * WEEKS_DAYS):
        weeks = days[at : at + WEEKS_DAYS]
        inputs, old, new = (
            _joined([lstm.inputs(chain, day) for day in weeks]),
            together(smoother, weeks),
            together(lstm, weeks),
        )
        for case, distort in DISTORTIONS.items():
            found.add(case, smoother, inputs, distort(old))
        after_swap.try_swaps(smoother, lstm, inputs, old, new)
        shown.append((inputs, {lstm.spec.digest: new, smoother.spec.digest: old}))
    everywhere = canary_alarms([(together(smoother, days), together(lstm, days))])
    return {
        "data": data,
        "detection": found.result(),
        "after_swap": {"bakery-lstm after bakery-smoother": after_swap.result()},
        "swaps": swap_alarms([(lstm, smoother), (smoother, lstm)], shown) | {"everywhere": everywhere},
    }


def _joined(parts: Sequence[Inputs]) -> Inputs:
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}


def measured(every: int, kept: Path) -> dict[str, Any]:
    """Everything, as it stands in the result file."""
    fresh, chain = fresh_results(every, kept), bakery_results(kept)
    return {
        "machine": _machine(),
        "settings": LIMITS.model_dump(),
        "every": every,
        "data": fresh["data"] | chain["data"],
        "swaps": {"freshretailnet": fresh["swaps"], "bakery": chain["swaps"]},
        "detection": {"freshretailnet-lstm": fresh["detection"], "bakery-smoother": chain["detection"]},
        "after_swap": fresh["after_swap"] | chain["after_swap"],
        "errors": fresh["errors"],
    }


def alarms(result: dict[str, Any]) -> int:
    """Trips where nothing was wrong."""
    trips = [stream["trips"] for data in result["data"].values() for stream in data["streams"].values()]
    trips += [each["trips"] for each in result["swaps"].values()]
    trips += [{"canary": each["everywhere"]["trips"]} for each in result["swaps"].values()]
    tried = [
        cases[name]
        for part in ("detection", "after_swap")
        for cases in result[part].values()
        for name in CONTROLS
        if name in cases
    ]
    return sum(sum(each.values()) for each in trips) + sum(int(case["found"]) for case in tried)


def _machine() -> dict[str, object]:
    whole = machine("", ())
    return {name: whole[name] for name in ("cpu", "cores", "python", "libraries")}


def main(arguments: Sequence[str]) -> int:
    """Measure, write the result, and say whether there were false alarms (exit 1)."""
    parser = argparse.ArgumentParser(
        prog="python -m bench guard", description="False alarms and detection of the guard."
    )
    parser.add_argument("--every", type=int, default=1, help="every n-th origin of FreshRetailNet only")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the forecasts there for the next run")
    parser.add_argument("--result", type=Path, default=RESULT, help="where to write it")
    chosen = parser.parse_args(arguments)
    with TemporaryDirectory() as scratch:
        result = measured(chosen.every, chosen.keep or Path(scratch))
    chosen.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if alarms(result) else 0
