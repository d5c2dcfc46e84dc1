"""By how many days one set of forecasts is behind another one of the same rows.                                  (pure)

Two forecasts of the same row go up and down on the same days, however different the networks are that made them: both know
its history, its promotions and its holidays. If they fit better with one of them moved by a day, one of them has the wrong dates. If
only a part of it has (the calendar, but not the history), they still fit best as they are, but better moved to one side than to
the other: the parabola through the three correlations has its top between two days.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FARTHEST_DAYS = 3
"""More would come round to the same weekday from the other side."""
LEAST_DAYS = 4
"""Days that must be left to compare when one of the two is moved."""
MOST_DAYS = 0.2
"""Sound models of any kind were apart by less over 256 rows (docs/guard.md)."""
LEAST_FIT = 0.5
"""A lag counts if the forecasts correlate by this much with it: then it explains what they say."""


class DayLag:
    """Correlations of two sets of forecasts over the days of their horizon, pooled over rows, for each lag in days."""

    def __init__(self) -> None:
        self._sums: dict[int, NDArray[np.float64]] = {}

    def add(self, one: NDArray[np.floating], other: NDArray[np.floating]) -> None:
        """Take forecasts of the same rows, both float[rows, horizon]. Each row counts by its relative ups and downs.

        Rows of which either says nothing at all, or nothing finite, are left out.
        """
        first, second = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore"):
            levels = first.mean(axis=1), second.mean(axis=1)
        told = np.logical_and.reduce([np.isfinite(level) & (level > 0) for level in levels])
        first, second = (each[told] / level[told, None] for each, level in zip((first, second), levels, strict=True))
        horizon = one.shape[1]
        for lag in range(-FARTHEST_DAYS, FARTHEST_DAYS + 1):
            if horizon - abs(lag) < LEAST_DAYS:
                continue
            sums = _products(
                first[:, max(-lag, 0) : horizon - max(lag, 0)], second[:, max(lag, 0) : horizon - max(-lag, 0)]
            )
            self._sums[lag] = self._sums.get(lag, np.zeros(3)) + sums

    @property
    def fits(self) -> dict[int, float]:
        """Days that the other forecasts are late by (early if negative) -> correlation; without those that can't be told."""
        return {lag: float(s[0] / np.sqrt(s[1] * s[2])) for lag, s in self._sums.items() if s[1] > 0 and s[2] > 0}

    @property
    def days(self) -> float | None:
        """How late the other forecasts are, in days; below 0: early. None where no lag fits well enough to say anything.

        A whole number if they fit best when moved; else the top of the parabola through the correlations at -1, 0 and 1.
        """
        fits = self.fits
        best = max(fits, key=fits.__getitem__, default=0)
        if 0 not in fits or fits[best] < LEAST_FIT:
            return None
        if best or not {-1, 1} <= fits.keys():
            return float(best)
        bend = 2 * fits[0] - fits[-1] - fits[1]
        return (fits[1] - fits[-1]) / (2 * bend) if bend > 0 else 0.0


def _products(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the products, and of the two squares, of deviations from each row's mean."""
    first = one - one.mean(axis=1, keepdims=True)
    second = other - other.mean(axis=1, keepdims=True)
    return np.array([np.vdot(first, second), np.vdot(first, first), np.vdot(second, second)], np.float64)
