"""LightGBM quantile regression on the same windows and covariates as the networks: the strongest baseline."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from demo.series import HORIZON_DAYS, FloatArray
from demo.training.features import WindowFeatures
from demo.training.model import QUANTILES
from demo.training.windows import Batch, Windows

_MAX_ROWS: Final = 2_000_000
_STOPPING_ROUNDS: Final = 25
_SETTINGS: Final = {
    "objective": "quantile",
    "learning_rate": 0.08,
    "num_leaves": 63,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "verbose": -1,
    "seed": 1,
    "deterministic": True,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows of one window and day ahead each. target: sales / scale; weight: scale, so that errors count in units."""

    features: FloatArray
    target: FloatArray
    weight: FloatArray


def forecast(
    windows: Windows,
    features: WindowFeatures,
    *,
    validation_start: int,
    test_start: int,
    validation: list[int],
    test: list[int],
    rounds: int = 500,
) -> FloatArray:
    """Forecasts at the days `test`: float32[origins, series, 14, 3].

    The number of trees is found on the validation origins with a model of the days before them; then it is refitted to
    all days before the test days. Quantiles are sorted and cut off at 0.
    """
    lightgbm: Any = importlib.import_module("lightgbm")
    early, late = (training_table(windows, features, end) for end in (validation_start, test_start))
    held_out = _joined([table(windows.origin(day), features) for day in validation])
    rows = [table(windows.origin(day), features, counted_only=False) for day in test]
    results = []
    for level in QUANTILES:
        settings = _SETTINGS | {"alpha": level, "num_threads": os.cpu_count() or 1}
        stop = lightgbm.early_stopping(_STOPPING_ROUNDS, verbose=False)
        chosen = lightgbm.train(
            settings, _dataset(lightgbm, early), rounds, valid_sets=[_dataset(lightgbm, held_out)], callbacks=[stop]
        )
        model = lightgbm.train(settings, _dataset(lightgbm, late), max(chosen.best_iteration, 1))
        results.append([model.predict(each.features) * each.weight for each in rows])
    stacked = np.array(results).transpose(1, 2, 0).reshape(len(test), windows.series, HORIZON_DAYS, len(QUANTILES))
    ordered: FloatArray = np.maximum(np.sort(stacked, axis=3), 0.0).astype(np.float32)
    return ordered


def training_table(windows: Windows, features: WindowFeatures, end: int, *, first: int = 20) -> Table:
    """Windows of every third day whose days ahead lie before `end`, thinned at random to two million rows."""
    generator = np.random.default_rng(end)
    origins = range(end - 1 - HORIZON_DAYS, first, -3)
    share = min(1.0, _MAX_ROWS / (len(origins) * windows.series * HORIZON_DAYS))
    parts = []
    for day in origins:
        whole = table(windows.origin(day), features)
        kept = np.flatnonzero(generator.random(len(whole.target)) < share)
        parts.append(Table(features=whole.features[kept], target=whole.target[kept], weight=whole.weight[kept]))
    return _joined(parts)


@torch.inference_mode()
def table(batch: Batch, features: WindowFeatures, *, counted_only: bool = True) -> Table:
    """One row per window and day ahead: the network's own tokens of that day, and the history's sales and stock."""
    tokens = features(batch.fields)
    rows = len(batch.actual)

    def repeated(values: Tensor) -> Tensor:
        return values.unsqueeze(1).expand(rows, HORIZON_DAYS, values.shape[1])

    day = (
        torch.arange(HORIZON_DAYS, dtype=torch.float32, device=batch.actual.device)
        .reshape(1, -1, 1)
        .expand(rows, HORIZON_DAYS, 1)
    )
    history = batch.fields["sales"] / tokens.scale
    columns = torch.cat([day, tokens.future, repeated(tokens.static), repeated(history)], 2).flatten(0, 1)
    scale = tokens.scale.expand(rows, HORIZON_DAYS).flatten()
    kept = batch.counted.flatten() > 0 if counted_only else torch.ones_like(scale, dtype=torch.bool)
    target = batch.actual.flatten() / scale
    values = [part[kept].cpu().numpy() for part in (columns, target, scale)]
    return Table(features=values[0], target=values[1], weight=values[2])


def _joined(parts: list[Table]) -> Table:
    return Table(
        features=np.concatenate([part.features for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
    )


def _dataset(lightgbm: Any, source: Table) -> Any:  # noqa: ANN401 - an untyped library
    return lightgbm.Dataset(source.features, source.target, weight=source.weight)
