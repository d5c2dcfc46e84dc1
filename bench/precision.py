"""`python -m bench.precision`: every model of `models/` in FP32, FP16 and INT8, its accuracy and its distance to FP32.

Computed by ONNX Runtime on the CPU from the graphs that plans are built from. Calibration rows come from days before the test
days, accuracy from the test days of docs/accuracy.md. Writes `bench/results/precision-cpu.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from demo import bakery, freshretailnet
from demo.series import HORIZON_DAYS, FloatArray, SeriesSet
from engine_build.calibration import calibration_of
from engine_build.evaluation import accuracy, compare, onnx_forecasts
from engine_build.graph import load_graph
from engine_build.precision import PrecisionGraph, Workpiece, write_fp16, write_fp32, write_int8
from schemas.load import load_schema

OUT: Final = Path("bench/results/precision-cpu.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set and its split, as in demo/training/tasks.py. calibration_days: days up to a fortnight before the test days."""

    load: Callable[[], SeriesSet]
    test_days: int
    origins: int
    calibration_days: int


DATA: Final[Mapping[str, Data]] = {
    "bakery": Data(load=bakery.load, test_days=56, origins=7, calibration_days=364),
    "freshretailnet": Data(load=freshretailnet.load, test_days=HORIZON_DAYS, origins=1, calibration_days=14),
}


def main(arguments: Sequence[str]) -> int:
    """Measure the models of both data sets, or of those that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    content: dict[str, object] = {"machine": _machine(), "models": {}}
    models: dict[str, object] = {}
    for name, data in DATA.items():
        series = data.load()
        calibration, test, actual = rows_of_data(series, data)
        for folder in sorted(options.models.glob(f"{name}-*")):
            models[folder.name] = _measured(folder / "model.onnx", calibration, test, actual)
            content["models"] = models
            options.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _machine() -> dict[str, str]:
    libraries = {name: version(name) for name in ("numpy", "onnx", "onnxruntime")}
    return {"machine": platform.machine(), "python": platform.python_version(), **libraries}


def rows_of_data(
    series: SeriesSet, data: Data, *, most_series: int | None = None
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], FloatArray]:
    """Columns to calibrate with, columns of the test origins, and what was sold after those.

    most_series: about how many series to take, evenly spaced; None for all.
    """
    step = 1 if most_series is None else max(len(series) // most_series, 1)
    start = len(series.dates) - data.test_days
    known = [int(day) for day in series.dates[: start - HORIZON_DAYS][-data.calibration_days :]]
    test = [int(series.dates[start - 1 + 7 * week]) for week in range(data.origins)]
    actual = np.concatenate([series.actuals(day)[::step] for day in test])
    return _columns(series, known, step), _columns(series, test, step), actual


def _columns(series: SeriesSet, days: Sequence[int], step: int) -> dict[str, FloatArray]:
    events = [{**series.windows(day), "as_of": np.full(len(series), day, np.float32)} for day in days]
    return {name: np.concatenate([event[name][::step] for event in events]) for name in events[0]}


def _measured(
    model: Path, calibration: Mapping[str, FloatArray], test: Mapping[str, FloatArray], actual: FloatArray
) -> dict[str, object]:
    graph = load_graph(model, load_schema(None, "sku_features"))
    rows = calibration_of(calibration, graph.inputs, load_schema(None, "sku_features"), source=model.parent.name)
    found: dict[str, object] = {"calibration_rows": len(rows), "calibration_sha256": rows.digest}
    reference = accuracy(onnx_forecasts(model, test), actual)
    work = Workpiece(model, rows.columns)
    writers: Mapping[str, Callable[[Path], PrecisionGraph]] = {
        "fp32": lambda target: write_fp32(model, target),
        "fp16": lambda target: write_fp16(work, target),
        "int8": lambda target: write_int8(work, target),
        "int8, rest fp32": lambda target: write_int8(work, target, rest="fp32", methods=("minmax",)),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for precision, write in writers.items():
            began_s = time.perf_counter()
            written = write(Path(scratch) / "model.onnx")
            took_s = time.perf_counter() - began_s
            errors = accuracy(onnx_forecasts(written.path, test), actual)
            verdict = compare(errors, reference)
            print(f"{model.parent.name:28s}{precision:16s}{verdict}  to FP32 {written.wape_to_fp32:.4%}", flush=True)
            found[precision] = {
                "seconds": round(took_s, 1),
                "method": written.method,
                "fp16_layers": written.fp16_layers,
                "int8_layers": written.int8_layers,
                "left_in_fp32": {name: str(error) for name, error in written.left_in_fp32.items()},
                "left_unquantised": written.left_unquantised,
                "wape_to_fp32": written.wape_to_fp32,
                "trials_wape_to_fp32": written.trials,
                "notes": written.notes,
                "size_bytes": written.path.stat().st_size,
                "accuracy": errors.model_dump(),
                "wape_loss": verdict.wape_loss,
                "pinball_loss": verdict.pinball_loss,
                "bias_growth": verdict.bias_growth,
                "passed": verdict.passed,
            }
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
