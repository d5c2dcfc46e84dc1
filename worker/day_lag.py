"""Whether one set of forecasts is another one's, moved by a day or more.                                        (pure)

Two forecasts of the same row go up and down on the same days, however different the networks are that made them: both know
its history, its promotions and its holidays. If they fit better with one of them moved by a day, one of them has the wrong dates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FARTHEST_DAYS = 3
"""More would come round to the same weekday from the other side."""
LEAST_DAYS = 4
"""Days that must be left to compare when one of the two is moved."""
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
    def found(self) -> tuple[int, float]:
        """The best lag that isn't 0, and how much better it fits than 0: below 0 as long as all is well.

        (0, -1.0) where no lag fits well enough to say anything.
        """
        fits = self.fits
        others = {lag: fit for lag, fit in fits.items() if lag and fit >= LEAST_FIT}
        if not others or 0 not in fits:
            return 0, -1.0
        best = max(others, key=others.__getitem__)
        return best, others[best] - fits[0]


def _products(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the products, and of the two squares, of deviations from each row's mean."""
    first = one - one.mean(axis=1, keepdims=True)
    second = other - other.mean(axis=1, keepdims=True)
    return np.array([np.vdot(first, second), np.vdot(first, first), np.vdot(second, second)], np.float64)
