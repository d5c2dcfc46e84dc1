"""What came of the demo: outcomes counted from the topics, and the forecasts' errors against what was sold.

Pure. `topics_reader.py` fetches what is judged here; nothing of the worker's own bookkeeping is believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from demo.series import HISTORY_DAYS, HORIZON_DAYS, FloatArray, SeriesSet

Position = tuple[int, int]
"""Partition and offset of an input record."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastRecord:
    """A forecast as read back. quantiles: float32[14, levels]."""

    source: Position
    sku_id: str
    store_id: str
    as_of: int
    quantiles: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRecord:
    """A dead letter as read back."""

    source: Position
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Every input record must have exactly one outcome. `strays` are outcomes of no input record."""

    inputs: int
    forecasts: int
    dead_letters: int
    lost: int
    duplicates: int
    strays: int
    reasons: Mapping[str, int]

    @property
    def exactly_once(self) -> bool:
        """Whether nothing was lost, doubled or made up."""
        return self.lost == self.duplicates == self.strays == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """WAPE of one forecaster: per series and day, per series and 14-day total, and per day ahead."""

    name: str
    daily: float
    total: float
    by_day_ahead: tuple[float, ...]


def outcomes(
    inputs: Iterable[Position], forecasts: Sequence[Position], dead_letters: Sequence[tuple[Position, str]]
) -> Outcomes:
    """Match outcomes with inputs by the position that each outcome carries. Coalescing must be off."""
    wanted = set(inputs)
    found = Counter(forecasts) + Counter(position for position, _ in dead_letters)
    return Outcomes(
        inputs=len(wanted),
        forecasts=len(forecasts),
        dead_letters=len(dead_letters),
        lost=len(wanted - found.keys()),
        duplicates=sum(count - 1 for count in found.values()),
        strays=len(found.keys() - wanted),
        reasons=Counter(reason for _, reason in dead_letters),
    )


def grid(series: SeriesSet, as_of_dates: Sequence[int], forecasts: Iterable[ForecastRecord]) -> FloatArray:
    """Forecasts in the order of the data: float32[dates, series, 14, levels]; NaN where there is none."""
    place = {key: index for index, key in enumerate(zip(series.sku_ids, series.store_ids, strict=True))}
    dates = {as_of: index for index, as_of in enumerate(as_of_dates)}
    result: FloatArray | None = None
    for record in forecasts:
        if result is None:
            shape = (len(dates), len(series), *record.quantiles.shape)
            result = np.full(shape, np.nan, dtype=np.float32)
        result[dates[record.as_of], place[record.sku_id, record.store_id]] = record.quantiles
    return np.full((len(dates), len(series), HORIZON_DAYS, 1), np.nan, np.float32) if result is None else result


def errors_of_all(series: SeriesSet, as_of_dates: Sequence[int], middle: FloatArray) -> list[Errors]:
    """The model (middle: float32[dates, series, 14]) and both baselines, on the same events.

    Events without a forecast count for none of them.
    """
    actual = np.stack([series.actuals(as_of) for as_of in as_of_dates])
    history = np.stack([series.windows(as_of)["sales"] for as_of in as_of_dates])
    known = np.isfinite(middle).all(axis=2)
    rows = [("model", middle), *((name, make(history)) for name, make in BASELINES.items())]
    return [wape(name, forecast[known], actual[known]) for name, forecast in rows]


def wape(name: str, forecast: FloatArray, actual: FloatArray) -> Errors:
    """Sum of absolute errors / sum of sales; forecast and actual float32[rows, 14]. NaN without any sales."""
    error = np.abs(forecast.astype(np.float64) - actual)
    totals = np.abs(forecast.sum(axis=1, dtype=np.float64) - actual.sum(axis=1, dtype=np.float64))
    sold = actual.sum(axis=0, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Errors(
            name=name,
            daily=float(error.sum() / sold.sum()),
            total=float(totals.sum() / sold.sum()),
            by_day_ahead=tuple(float(value) for value in error.sum(axis=0) / sold),
        )


def seasonal_naive(history: FloatArray) -> FloatArray:
    """The last seven days, twice: float32[..., 30] -> float32[..., 14]."""
    last_week = history[..., HISTORY_DAYS - 7 :]
    return np.concatenate([last_week] * (HORIZON_DAYS // 7), axis=-1)


def mean_of_28_days(history: FloatArray) -> FloatArray:
    """The mean of the last 28 days on every day: float32[..., 30] -> float32[..., 14]."""
    mean = history[..., HISTORY_DAYS - 28 :].mean(axis=-1, keepdims=True)
    return np.repeat(mean, HORIZON_DAYS, axis=-1)


BASELINES: Final[Mapping[str, Callable[[FloatArray], FloatArray]]] = {
    "seasonal naive": seasonal_naive,
    "28-day mean": mean_of_28_days,
}
