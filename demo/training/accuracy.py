"""Every model, in every precision, and every baseline on the test days of one data set: the numbers behind docs/accuracy.md."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from demo.series import FloatArray, SeriesSet
from demo.training import card
from demo.training.export import run_onnx
from demo.training.forecasts import read_baselines, save_arrays, write_baselines
from demo.training.metrics import report, summary
from demo.training.outcomes import outcome
from demo.training.tasks import Task
from demo.training.windows import Windows
from engine_build.precision import Workpiece, write_fp16, write_int8
from schemas.engine_card import Precision

VERSION: Final = "1"

_SAMPLES: Final = 2048
_COMPARED: Final = 512
_MUST_BEAT: Final = ("wape_sku_day", "wape_sku_14_days", "pinball")


def measure(task: Task, models: Path, baselines: Path | None, out: Path, *, threads: int = 0) -> None:
    """Write `accuracy-<data>.json` to `out` and `card.json` beside each model; print the main lines.

    models: folder with `<data>-<name>/model.onnx`. baselines: folder of what `baselines` wrote; what is missing is made now.
    None: the baselines' numbers stay those that the file in `out` has, as they don't depend on the models.
    """
    data = task.load()
    start = task.test_start(data)
    if baselines is None:
        compared = _known_baselines(task, data, out / f"accuracy-{task.name}.json")
    else:
        write_missing(task, baselines)
        compared = _reports(task, data, read_baselines(task, baselines))
    windows = Windows(data, task.features.inputs, torch.device("cpu"))
    found = {name: models / f"{task.name}-{name}" for name in task.recipes}
    precisions = {
        name: _by_precision(task, data, windows, folder / "model.onnx", threads) for name, folder in found.items()
    }
    reports = _reports(task, data, {name: each["fp32"] for name, each in precisions.items()}) | compared
    content = {
        **_split(task, data),
        "machine": platform.machine(),
        "primary": next(iter(task.recipes)),
        "models": list(task.recipes),
        "reports": reports,
        "precisions": {
            name: {kind: summary(outcome(task, data, forecast, start)) for kind, forecast in each.items()}
            for name, each in precisions.items()
        },
        "training": {name: _training(folder / "report.json") for name, folder in found.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, folder in found.items():
        card.write(task, name, folder, precisions[name], data, version=VERSION)
    (out / f"accuracy-{task.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print_lines(reports, next(iter(task.recipes)), list(task.recipes))


def _reports(task: Task, data: SeriesSet, forecasts: Mapping[str, FloatArray]) -> dict[str, Any]:
    start = task.test_start(data)
    return {name: report(outcome(task, data, forecast, start)) for name, forecast in forecasts.items()}


def _split(task: Task, data: SeriesSet) -> dict[str, object]:
    """What was forecast: the series, and the days and origins of the test."""
    start = task.test_start(data)
    return {
        "data": task.name,
        "series": len(data),
        "test_first_day": str(np.datetime64(int(data.dates[start]), "D")),
        "test_last_day": str(np.datetime64(int(data.dates[-1]), "D")),
        "origins": task.origins,
    }


def _known_baselines(task: Task, data: SeriesSet, path: Path) -> dict[str, Any]:
    """The reports of an earlier run's baselines. Raises `SystemExit` if there is none, or it forecast something else."""
    if not path.is_file():
        raise SystemExit(
            f"{path}: there is none, expected an earlier run's, as --baselines wasn't given; name a folder there"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    wrong = {name: content.get(name) for name, value in _split(task, data).items() if content.get(name) != value}
    if wrong:
        raise SystemExit(
            f"{path}: its baselines are of {wrong}, expected {_split(task, data)}; name a folder with --baselines"
        )
    return {name: each for name, each in content["reports"].items() if name not in content["models"]}


def write_missing(task: Task, folder: Path) -> None:
    """Make those baseline forecasts that aren't in `folder` yet."""
    for kind in ("rules", "ets", "boosting"):
        if not (folder / f"baselines-{task.name}-{kind}.npz").is_file():
            write_baselines(task, folder, only=kind)


def print_lines(reports: Mapping[str, Mapping[str, object]], primary: str, models: list[str]) -> None:
    """One line per forecaster, and whether the primary is ahead of every baseline."""
    lines = {name: each["all"] for name, each in reports.items()}
    for name, line in lines.items():
        assert isinstance(line, dict)  # noqa: S101 - for the type checker
        print(f"{name:32s}" + "".join(f" {key} {line[key]:.4f}" for key in (*_MUST_BEAT, "bias", "coverage_p10_p90")))
    for key in _MUST_BEAT:
        behind = [name for name in lines if name not in models and lines[name][key] <= lines[primary][key]]  # type: ignore[index]
        print(f"{primary} on {key}: " + (f"behind {', '.join(behind)}" if behind else "ahead of every baseline"))


def calibration_samples(task: Task, data: SeriesSet, windows: Windows) -> dict[str, FloatArray]:
    """Windows of random series and days before the test days: what INT8 ranges are taken from."""
    end = task.test_start(data)
    generator = torch.Generator().manual_seed(1)
    series = torch.randint(0, windows.series, (_SAMPLES,), generator=generator)
    as_of = torch.randint(30, end - 14, (_SAMPLES,), generator=generator)
    return {name: field.numpy() for name, field in windows.batch(series, as_of, end).fields.items()}


def _by_precision(
    task: Task, data: SeriesSet, windows: Windows, model: Path, threads: int
) -> dict[Precision, FloatArray]:
    """Forecasts of the test days in each precision, by ONNX Runtime on the CPU."""
    fields = [windows.origin(day).fields for day in task.origins_from(task.test_start(data))]
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[Precision, Path] = {
            "fp32": model,
            "fp16": Path(scratch) / "fp16.onnx",
            "int8": Path(scratch) / "int8.onnx",
        }
        samples = calibration_samples(task, data, windows)
        work = Workpiece(model, samples)
        write_fp16(work, files["fp16"])
        write_int8(work, files["int8"])
        return {
            kind: np.stack(
                [
                    run_onnx(path, {name: field.numpy() for name, field in each.items()}, threads=threads)
                    for each in fields
                ]
            )
            for kind, path in files.items()
        }


def write_precisions(tasks: Sequence[Task], models: Path, out: Path) -> None:
    """Every model as `<data>-<name>.<precision>.onnx` in `out`, with `<data>-<name>.npz`: inputs and the FP32 forecast."""
    out.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        data = task.load()
        windows = Windows(data, task.features.inputs, torch.device("cpu"))
        samples = calibration_samples(task, data, windows)
        for name in task.recipes:
            model, stem = models / f"{task.name}-{name}" / "model.onnx", f"{task.name}-{name}"
            shutil.copyfile(model, out / f"{stem}.fp32.onnx")
            work = Workpiece(model, samples)
            write_fp16(work, out / f"{stem}.fp16.onnx")
            write_int8(work, out / f"{stem}.int8.onnx")
            some = {field: values[:_COMPARED] for field, values in samples.items()}
            save_arrays(out / f"{stem}.npz", {"forecast": run_onnx(model, some), **some})


def _training(path: Path) -> object:
    """The training report beside a model, without its long lists; None if there is none."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in content.items() if name not in {"calibration", "history"}}
