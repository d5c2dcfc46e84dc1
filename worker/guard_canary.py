"""The first rows of a new version beside what the version before makes of them.                                   (pure)

Distributions need many rows and don't see every fault. A second opinion on the very same rows does with few: two sound models
disagree about a row far less than a broken one does with either.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from worker.day_lag import DayLag


class Canary:
    """Compares up to `rows` rows. before: digest of the engine that served until now, which is asked for its forecasts."""

    def __init__(self, before: str, rows: int) -> None:
        self.before = before
        self.rows = 0
        self.lag = DayLag()
        self._most_rows = rows
        self._apart = self._level = 0.0

    def places(self, rows: int, without: Collection[int]) -> NDArray[np.intp]:
        """Which of a batch's `rows` rows to compare: as many as are still missing, evenly spread, none of `without`."""
        fit = np.setdiff1d(np.arange(rows), np.fromiter(without, np.intp))
        wanted = min(self._most_rows - self.rows, len(fit))
        return fit[np.arange(wanted) * len(fit) // max(wanted, 1)].astype(np.intp)

    def add(self, before: NDArray[np.float32], now: NDArray[np.float32], least_mean: float) -> None:
        """Forecasts of the same rows, float32[rows, horizon, quantiles] both (of quantiles only the middle one counts).

        Rows for which either has something that isn't finite, or both together less than `least_mean` units per day on average,
        are left out. Each row counts the same, however much it sells.
        """
        middle = before.shape[2] // 2
        first, second = before[:, :, middle].astype(np.float64), now[:, :, middle].astype(np.float64)
        with np.errstate(invalid="ignore"):
            level = (first.mean(axis=1) + second.mean(axis=1)) / 2
        counted = np.isfinite(level) & (level >= least_mean)
        first, second, level = first[counted], second[counted], level[counted]
        self.rows += len(before)
        self._level += float(first.size)
        self._apart += float((np.abs(second - first) / level[:, None]).sum())
        self.lag.add(first, second)

    @property
    def complete(self) -> bool:
        """Whether enough rows were compared."""
        return self.rows >= self._most_rows

    @property
    def difference(self) -> float:
        """Mean over rows of the sum of |now - before| over the days, as a share of the mean of their two sums: from 0 to 2."""
        return self._apart / self._level if self._level else 0.0
