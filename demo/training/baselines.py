"""What the models must beat: three rules of thumb and AutoETS, with P10 and P90 so that the pinball loss compares too."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import numpy as np

from demo.evaluation import mean_of_28_days, seasonal_naive
from demo.series import HISTORY_DAYS, HORIZON_DAYS, FloatArray, SeriesSet

_SEASON_DAYS: Final = 7
_RATIO_FLOOR: Final = 0.1
_INTERVAL: Final = 80


def weekday_profile(history: FloatArray) -> FloatArray:
    """Mean of the last 28 days times the weekday's share in them: float32[..., 30] -> float32[..., 14].

    Over four whole weeks that product is the mean of the four days with the same weekday.
    """
    weeks = history[..., HISTORY_DAYS - 28 :].reshape(*history.shape[:-1], 4, _SEASON_DAYS).mean(axis=-2)
    return np.concatenate([weeks] * (HORIZON_DAYS // _SEASON_DAYS), axis=-1)


RULES: Final[Mapping[str, Callable[[FloatArray], FloatArray]]] = {
    "seasonal naive": seasonal_naive,
    "28-day mean": mean_of_28_days,
    "weekday profile x 28-day mean": weekday_profile,
}


def rules(data: SeriesSet, as_of: list[int], past: list[int]) -> dict[str, FloatArray]:
    """Forecasts of the rules at the days `as_of`: float32[origins, series, 14, 3] each.

    P10 and P90 are the forecast times the quantiles of actual / forecast per day ahead at the earlier days `past`.
    """
    return {name: _with_spread(rule, data, as_of, past) for name, rule in RULES.items()}


def _with_spread(
    rule: Callable[[FloatArray], FloatArray], data: SeriesSet, as_of: list[int], past: list[int]
) -> FloatArray:
    earlier = rule(_histories(data, past))
    ratio = _futures(data, past) / np.maximum(earlier, _RATIO_FLOOR)
    low, high = np.quantile(ratio, (0.1, 0.9), axis=(0, 1)).astype(np.float32)
    middle = rule(_histories(data, as_of))
    spread = np.stack(
        [np.minimum(low, 1.0) * middle, middle, np.maximum(high, 1.0) * np.maximum(middle, _RATIO_FLOOR)], axis=-1
    )
    return spread.astype(np.float32)


def _histories(data: SeriesSet, as_of: list[int]) -> FloatArray:
    return np.stack([data.sales[:, day + 1 - HISTORY_DAYS : day + 1] for day in as_of])


def _futures(data: SeriesSet, as_of: list[int]) -> FloatArray:
    return np.stack([data.sales[:, day + 1 : day + 1 + HORIZON_DAYS] for day in as_of])


def auto_ets(data: SeriesSet, as_of: list[int], processes: int | None = None) -> FloatArray:
    """AutoETS of statsforecast, weekly season, refitted to all days up to each origin: float32[origins, series, 14, 3].

    Negative values are set to 0. Minutes to an hour of CPU for a large data set; `processes` defaults to all cores but eight.
    """
    jobs = processes or max((os.cpu_count() or 1) - 8, 1)
    return np.stack([_ets_origin(data.sales[:, : day + 1], jobs) for day in as_of])


def _ets_origin(sales: FloatArray, processes: int) -> FloatArray:
    chunks = np.array_split(sales, max(min(len(sales), processes * 8), 1))
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return np.concatenate(list(pool.map(ets_rows, chunks)))


def ets_rows(sales: FloatArray) -> FloatArray:
    """AutoETS for each row: float32[rows, days] -> float32[rows, 14, 3]."""
    models: Any = importlib.import_module("statsforecast.models")
    result = np.empty((len(sales), HORIZON_DAYS, 3), dtype=np.float32)
    for row, series in enumerate(sales):
        if not series.any():
            result[row] = 0.0
            continue
        forecast = models.AutoETS(season_length=_SEASON_DAYS).forecast(
            y=series.astype(np.float64), h=HORIZON_DAYS, level=[_INTERVAL]
        )
        keys = (f"lo-{_INTERVAL}", "mean", f"hi-{_INTERVAL}")
        result[row] = np.stack([forecast[key] for key in keys], axis=1)
    return np.maximum(np.nan_to_num(result), 0.0)
