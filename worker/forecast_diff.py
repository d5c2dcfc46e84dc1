"""What changed between two sets of forecasts of the same keys and dates, and which one was closer to what was sold. Pure.

Accuracy is as in docs/accuracy.md: WAPE is the sum of absolute errors of the median over the sum of actual sales, bias
the sum of errors over the same, and the pinball loss is twice the mean over the levels of the summed losses over the
same, so that of the median alone it equals WAPE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.forecast_table import ForecastTable

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From `before` to `after`, over some numbers.

    mean_before, mean_after: their means. mean_absolute, p95_absolute, largest_absolute: of |after - before|. relative: sum
    of |after - before| over the sum of |before|. All NaN where there are no numbers (relative: where the sum is 0).
    """

    mean_before: float
    mean_after: float
    mean_absolute: float
    p95_absolute: float
    largest_absolute: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """One forecast's total over all days, of the median (or the level nearest to it). as_of: days since 1970."""

    key: bytes
    as_of: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def relative(self) -> float:
        """Change over before; NaN if that is 0."""
        return self.change / self.before if self.before else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One side against what was sold, over `cells` days of keys. by_day: WAPE per horizon day, NaN without sales."""

    cells: int
    wape: float
    bias: float
    pinball: float
    by_day: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is said of two sides.

    forecasts: compared. identical: of these, equal in every bit. overall: over all levels and days; by_level: per level;
    by_day: of the median (or nearest level) per horizon day; width: highest less lowest level, and per day. movers:
    largest first. accuracy: of both sides on the same days, None without actual sales.
    """

    forecasts: int
    identical: int
    days: int
    median_level: float
    overall: Change
    by_level: Mapping[float, Change]
    by_day: Sequence[Change]
    width: Change
    width_by_day: Sequence[Change]
    movers: Sequence[Mover]
    accuracy: tuple[Accuracy, Accuracy] | None


def compare(
    before: ForecastTable, after: ForecastTable, *, movers: int = 10, actual: NDArray[np.float32] | None = None
) -> Comparison:
    """Compare forecasts of the same keys, dates and layout, row by row.

    actual: float32[n, days], NaN where nobody knows. Raises `ValueError` if the two don't belong together.
    """
    if list(before.keys) != list(after.keys) or before.levels != after.levels:
        raise ValueError("got tables of different keys or levels, expected matched ones")
    if before.values.shape != after.values.shape or not np.array_equal(before.as_of, after.as_of):
        raise ValueError("got tables of different dates or days, expected matched ones")
    median = median_index(before.levels)
    days = before.values.shape[1]
    old, new = before.values[..., median], after.values[..., median]
    old_width = before.values[..., -1] - before.values[..., 0]
    new_width = after.values[..., -1] - after.values[..., 0]
    return Comparison(
        forecasts=len(before),
        identical=int((before.values == after.values).all(axis=(1, 2)).sum()),
        days=days,
        median_level=before.levels[median],
        overall=change(before.values, after.values),
        by_level={
            level: change(before.values[..., index], after.values[..., index])
            for index, level in enumerate(before.levels)
        },
        by_day=[change(old[:, day], new[:, day]) for day in range(days)],
        width=change(old_width, new_width),
        width_by_day=[change(old_width[:, day], new_width[:, day]) for day in range(days)],
        movers=_movers(before, after, median, movers),
        accuracy=None if actual is None else (accuracy(before, actual), accuracy(after, actual)),
    )


def median_index(levels: Sequence[float]) -> int:
    """The place of 0.5 among `levels`, or of the level nearest to it."""
    return int(np.argmin(np.abs(np.asarray(levels) - 0.5)))


def change(before: Floats, after: Floats) -> Change:
    """The change over all elements of two arrays of the same shape."""
    if not before.size:
        nothing = float("nan")
        return Change(
            mean_before=nothing,
            mean_after=nothing,
            mean_absolute=nothing,
            p95_absolute=nothing,
            largest_absolute=nothing,
            relative=nothing,
        )
    moved = np.abs(np.subtract(after, before, dtype=np.float64))
    return Change(
        mean_before=float(before.mean(dtype=np.float64)),
        mean_after=float(after.mean(dtype=np.float64)),
        mean_absolute=float(moved.mean()),
        p95_absolute=float(np.quantile(moved, 0.95)),
        largest_absolute=float(moved.max()),
        relative=_ratio(float(moved.sum()), float(np.abs(before).sum(dtype=np.float64))),
    )


def accuracy(table: ForecastTable, actual: NDArray[np.float32]) -> Accuracy:
    """`table` against float32[n, days] of what was sold; days that are NaN there don't count."""
    is_known = ~np.isnan(actual)
    sold = actual[is_known].astype(np.float64)
    total = float(sold.sum())
    median = median_index(table.levels)
    error = table.values[..., median][is_known].astype(np.float64) - sold
    losses = []
    for index, level in enumerate(table.levels):
        over = table.values[..., index][is_known].astype(np.float64) - sold
        losses.append(float(np.maximum((level - 1.0) * -over, -level * over).sum()))
    return Accuracy(
        cells=int(is_known.sum()),
        wape=_ratio(float(np.abs(error).sum()), total),
        bias=_ratio(float(error.sum()), total),
        pinball=_ratio(2.0 * float(np.mean(losses)), total),
        by_day=[_day_wape(table.values[:, day, median], actual[:, day]) for day in range(actual.shape[1])],
    )


def _day_wape(forecast: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    is_known = ~np.isnan(actual)
    sold = actual[is_known].astype(np.float64)
    return _ratio(float(np.abs(forecast[is_known] - sold).sum()), float(sold.sum()))


def _movers(before: ForecastTable, after: ForecastTable, median: int, count: int) -> list[Mover]:
    old = before.values[..., median].sum(axis=1, dtype=np.float64)
    new = after.values[..., median].sum(axis=1, dtype=np.float64)
    order = np.argsort(-np.abs(new - old), kind="stable")[:count]
    return [
        Mover(key=before.keys[i], as_of=int(before.as_of[i]), before=float(old[i]), after=float(new[i]))
        for i in order.tolist()
        if new[i] != old[i]
    ]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
