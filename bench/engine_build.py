"""`python -m bench engine-build`: how long `engine-build build` takes on a machine without a GPU, by TensorRT-RTX.

Each model of `models/` in a process of its own, twice: `--precision auto` without data (FP32 and FP16), and with calibration and
evaluation rows of real data (FP32, FP16 and INT8). Wall-clock seconds from start to exit, so Python's imports count, and beside
them what all cores together worked for it: on a machine with other work the first grow, the second hardly. Writes
`bench/results/engine-build-cpu.json`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.machine import cpu_facts, load_average
from bench.precision import DATA, rows_of_data
from demo.series import FloatArray
from engine_build.onnx_run import OnnxRun
from schemas.model_store import current_name

OUT: Final = Path("bench/results/engine-build-cpu.json")
TARGETS: Final = "sm80,sm89"
SERIES: Final = 2_000
"""Of FreshRetailNet's 50,000: calibration takes 2,048 rows anyway, and an evaluation needs no more to see 2 %."""


def main(arguments: Sequence[str]) -> int:
    """Build every model, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench engine-build", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    folders = options.models or sorted(path.parent for path in Path("models").glob("*/model.onnx"))
    content: dict[str, Any] = {"machine": _machine(), "targets": TARGETS, "models": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            rows = _files(folder.name.partition("-")[0], Path(scratch))
            content["models"][folder.name] = _measured(folder, rows, Path(scratch))
            options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def _machine() -> dict[str, Any]:
    libraries = {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "tensorrt-rtx-cu13")}
    return {**cpu_facts(), "libraries": libraries, "load_average_before": load_average()}


def _files(data: str, scratch: Path) -> list[str]:
    """Options that name calibration and evaluation rows, written once for each data set."""
    calibration, evaluation = (scratch / f"{data}-{kind}.parquet" for kind in ("calibration", "evaluation"))
    if not calibration.is_file():
        source = DATA[data]
        before, test, actual = rows_of_data(source.load(), source, most_series=SERIES)
        _write(calibration, before)
        _write(evaluation, {**test, "actual": actual})
    return ["--calibration", str(calibration), "--evaluation", str(evaluation)]


def _write(path: Path, columns: Mapping[str, FloatArray]) -> None:
    pq.write_table(pa.table({name: _arrow(values) for name, values in columns.items()}), path)


def _arrow(values: FloatArray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _measured(folder: Path, rows: list[str], scratch: Path) -> dict[str, Any]:
    found = {}
    for kind, options in (("auto", []), ("auto with data", rows)):
        report = scratch / "report.json"
        models = scratch / kind.replace(" ", "-")
        command = [sys.executable, "-m", "engine_build", "build", "--onnx", str(folder / "model.onnx")]
        command += ["--out", str(models), "--target", TARGETS, "--json", str(report), *options]
        began_s, worked_s, load = time.perf_counter(), _worked_s(), load_average()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took_s = time.perf_counter() - began_s
        content = json.loads(report.read_text(encoding="utf-8"))
        shown = ("precision", "built_s", "size_bytes", "layers", "problems")
        found[kind] = {
            "seconds": round(took_s, 1),
            "cpu_seconds": round(_worked_s() - worked_s, 1),
            "load_average_before": load,
            "published": content["published"],
            "plans": [{name: plan[name] for name in shown} for plan in content["plans"]],
            "graphs": {name: _graph(graph) for name, graph in content["graphs"].items()},
            "differs": _differences(models / folder.name),
        }
        print(f"{folder.name:28s}{kind:16s}{took_s:6.1f} s  {', '.join(content['published'])}", flush=True)
    return found


def _worked_s() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _differences(store: Path) -> dict[str, dict[str, float]]:
    """How far each graph's forecasts of the golden rows are from FP32's, by ONNX Runtime, as `engine_build.allowances` counts."""
    version = store / current_name(store)
    with np.load(version / "golden.npz") as content:
        rows = {name: content[name] for name in content.files}
    reference = rows.pop("forecast")
    found = {}
    for path in sorted((version / "graphs").glob("*.onnx")):
        error = np.abs(OnnxRun(path).forecasts(rows) - reference)
        allowed = np.abs(reference).mean() + np.abs(reference)
        found[path.stem] = {
            "pointwise": float((error / allowed).max()),
            "summed": float(error.sum() / np.abs(reference).sum()),
        }
    return found


def _graph(graph: Mapping[str, Any]) -> dict[str, Any]:
    return {name: graph[name] for name in ("method", "accuracy", "fp16_layers", "int8_layers") if name in graph}
