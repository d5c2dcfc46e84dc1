"""Forecasts of the test days by every baseline, kept as files, because AutoETS takes minutes of many cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo.series import FloatArray, SeriesSet
from demo.training import boosting
from demo.training.baselines import auto_ets, rules
from demo.training.features import WindowFeatures
from demo.training.tasks import Task
from demo.training.windows import Windows


def write_baselines(task: Task, out: Path, *, only: str | None = None) -> None:
    """One `baselines-<kind>.npz` per kind in `out`: name -> float16[origins, series, 14, 3]. only: rules, ets or boosting."""
    data = task.load()
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], dict[str, FloatArray]]] = {
        "rules": lambda: _rules(task, data),
        "ets": lambda: {"AutoETS": auto_ets(data, task.origins_from(task.test_start(data)))},
        "boosting": lambda: {"LightGBM": _boosting(task, data)},
    }
    for kind, make in makers.items():
        if only in (None, kind):
            start_s = time.monotonic()
            found = {name: forecast.astype(np.float16) for name, forecast in make().items()}
            save_arrays(out / f"baselines-{task.name}-{kind}.npz", found)
            print(f"{task.name} {kind}: {time.monotonic() - start_s:.0f} s", flush=True)


def read_baselines(task: Task, folder: Path) -> dict[str, FloatArray]:
    """What `write_baselines` wrote: name -> float32[origins, series, 14, 3]."""
    found: dict[str, FloatArray] = {}
    for path in sorted(folder.glob(f"baselines-{task.name}-*.npz")):
        with np.load(path) as content:
            found |= {name: content[name].astype(np.float32) for name in content.files}
    return found


def _rules(task: Task, data: SeriesSet) -> dict[str, FloatArray]:
    test, validation = (task.origins_from(start) for start in (task.test_start(data), task.validation_start(data)))
    return rules(data, test, validation)


def _boosting(task: Task, data: SeriesSet) -> FloatArray:
    start, end = task.validation_start(data), task.test_start(data)
    return boosting.forecast(
        Windows(data, task.features.inputs, torch.device("cpu")),
        WindowFeatures(task.features),
        validation_start=start,
        test_start=end,
        validation=task.origins_from(start),
        test=task.origins_from(end),
    )


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write named arrays to a compressed .npz."""
    save: Any = np.savez_compressed  # its types take no arrays by name
    save(path, **arrays)
