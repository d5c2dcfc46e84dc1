"""Trains one model of one data set from the data file to the ONNX file, and says how good it is."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch

from demo.series import SeriesSet
from demo.training.calibrate import calibrate
from demo.training.export import export, largest_difference
from demo.training.fit import Fit, fit, predict
from demo.training.metrics import summary
from demo.training.model import Forecaster
from demo.training.outcomes import outcome
from demo.training.tasks import Task
from demo.training.windows import Windows

_CHECKED_ROWS: Final = 512
_LARGEST_DIFFERENCE: Final = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stages:
    chosen: Fit
    final: Forecaster


def train(
    task: Task, name: str, out: Path, *, device: torch.device, seed: int, graphs: bool = True
) -> dict[str, object]:
    """Train in two stages, write `model.onnx` and `report.json` to `out`, and return the report.

    First on the days before the validation days: that finds the number of epochs and the calibration. Then anew, for that
    number of epochs, on all days before the test days. The test days are only looked at when both are done.
    Raises `RuntimeError` if the ONNX file doesn't compute what PyTorch does.
    """
    start_s = time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = True
    data = task.load()
    loaded_s = time.monotonic() - start_s
    recipe = task.recipes[name]
    windows = Windows(data, task.features.inputs, device)
    stages = _train(task, name, data, windows, seed, graphs=graphs)
    out.mkdir(parents=True, exist_ok=True)
    validation = _summary(task, data, windows, stages.chosen.model, task.validation_start(data))
    test = _summary(task, data, windows, stages.final, task.test_start(data))
    trained_s = time.monotonic() - start_s
    path = out / "model.onnx"
    torch.save({"final": stages.final.state_dict(), "validation": stages.chosen.model.state_dict()}, out / "weights.pt")
    export(stages.final, path)
    difference = _checked(stages.final, path, windows, task.test_start(data))
    report: dict[str, object] = {
        "data": task.name,
        "model": name,
        "recipe": dataclasses.asdict(recipe),
        "features": dataclasses.asdict(task.features),
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in stages.final.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "load_s": loaded_s,
        "seconds": trained_s,
        "epochs": stages.chosen.epoch,
        "history": [dataclasses.asdict(epoch) for epoch in stages.chosen.history],
        "calibration": stages.final.calibration.factors.tolist(),
        "validation": validation,
        "test": test,
        "pytorch_onnx_difference": difference,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _train(task: Task, name: str, data: SeriesSet, windows: Windows, seed: int, *, graphs: bool) -> _Stages:
    recipe, start = task.recipes[name], task.validation_start(data)
    origins = task.origins_from(start)

    def score(model: Forecaster) -> float:
        return summary(outcome(task, data, predict(model, windows, origins).numpy(), start))["pinball"]

    def untrained() -> Forecaster:
        torch.manual_seed(seed)
        return recipe.build(task.features).to(windows.device)

    print(f"{task.name} {name}: to the validation days", flush=True)
    chosen = fit(untrained(), windows, recipe.fit, end=start, seed=seed, score=score, graphs=graphs)
    calibrate(chosen.model, windows, origins)
    print(f"{task.name} {name}: to the test days, {chosen.epoch} epochs", flush=True)
    final = fit(
        untrained(),
        windows,
        recipe.fit,
        end=task.test_start(data),
        seed=seed,
        score=None,
        epochs=chosen.epoch,
        graphs=graphs,
    ).model
    final.calibration.load_state_dict(chosen.model.calibration.state_dict())
    return _Stages(chosen=chosen, final=final)


def _summary(task: Task, data: SeriesSet, windows: Windows, model: Forecaster, start: int) -> dict[str, float]:
    forecast = predict(model, windows, task.origins_from(start)).numpy()
    return summary(outcome(task, data, forecast, start))


def _checked(model: Forecaster, path: Path, windows: Windows, end: int) -> float:
    rows = np.linspace(0, windows.series - 1, min(_CHECKED_ROWS, windows.series)).astype(np.int64)
    series = torch.from_numpy(rows).to(windows.device)
    batch = windows.batch(series, torch.full_like(series, end - 1), windows.days)
    difference = largest_difference(model, path, {name: field.cpu() for name, field in batch.fields.items()})
    if not difference <= _LARGEST_DIFFERENCE:
        raise RuntimeError(
            f"{path}: ONNX Runtime differs from PyTorch by {difference:.1e}, expected at most {_LARGEST_DIFFERENCE:.0e}"
        )
    return difference
