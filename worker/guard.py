"""What a single forecast may not be. Pure: forecasts in, faults out.

No number leaves unchecked: every batch is asked about before any of it is produced. `guard_watch.py` judges many rows together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

CROSSING_TOLERANCE = 1e-4
"""Quantiles may cross by this share of their size (float32 and lower precisions round), no more."""


class Rule(StrEnum):
    """What a forecast (the first ones), or the engine that makes them, may break; the label of its metric."""

    NOT_FINITE = "not_finite"
    NEGATIVE = "negative"
    CROSSING = "crossing_quantiles"
    EXPLOSION = "explosion"
    ENGINE_ERROR = "engine_error"
    WRONG_SHAPE = "wrong_shape"
    FAULT_SHARE = "fault_share"
    DRIFT = "drift"
    SHIFT = "shift"
    WEEKDAY = "weekday_lag"
    JUMP = "jump"
    CANARY = "canary"
    LATENCY = "latency"

    @property
    def fallback_reason(self) -> str:
        """What a forecast says that another engine made because of this."""
        return str(self) if self is Rule.ENGINE_ERROR else f"guard:{self}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Row `row` of the batch broke `rule`."""

    row: int
    rule: Rule
    detail: str


def faults(values: NDArray[np.float32]) -> list[Fault]:
    """The rows of `values` float32[rows, horizon, quantiles] that must not be published, each with the first rule broken.

    Quantiles must be finite, at least zero (units sold), and ascending along the last axis.
    """
    if values.size == 0:
        return []
    lowest = values.min()  # NaN if any is
    if np.isfinite(lowest) and lowest >= 0 and np.isfinite(values.max()) and _orderly(values):
        return []
    with np.errstate(invalid="ignore", over="ignore"):
        broken = {
            Rule.NOT_FINITE: ~np.isfinite(values),
            Rule.NEGATIVE: values < 0,
            Rule.CROSSING: np.pad(_crossing(values), ((0, 0), (0, 0), (1, 0))),
        }
    found: dict[int, Fault] = {}
    for rule, where in broken.items():
        for row in np.flatnonzero(where.any(axis=(1, 2))).tolist():
            day, quantile = np.argwhere(where[row])[0].tolist()
            detail = f"{rule}: forecast[day {day}, quantile {quantile}] = {values[row, day, quantile]}"
            found.setdefault(row, Fault(row, rule, detail))
    return [found[row] for row in sorted(found)]


def explosions(
    values: NDArray[np.float32], history: NDArray[np.float32], factor: float, least_sales: float
) -> list[Fault]:
    """The rows of `values` float32[rows, horizon, quantiles] that are out of all proportion to their own history.

    history: float32[rows, days], units per day. A row's highest number may be `factor` times the largest day of its history, or
    times `least_sales` if that is more. Rows that aren't finite are `faults`' to find.
    """
    if values.size == 0:
        return []
    peaks = values[:, :, -1].max(axis=1)
    if float(peaks.max()) <= factor * least_sales:  # no row can have exploded, whatever its history
        return []
    limits = factor * np.maximum(history.max(axis=1), least_sales)
    return [
        Fault(row, Rule.EXPLOSION, f"{Rule.EXPLOSION}: forecast up to {peaks[row]:g}, expected at most {limits[row]:g}")
        for row in np.flatnonzero(peaks > limits).tolist()
    ]


def _crossing(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    lower, upper = values[:, :, :-1], values[:, :, 1:]
    return lower - upper > CROSSING_TOLERANCE * np.abs(lower)


def _orderly(values: NDArray[np.float32]) -> bool:
    """Whether no quantile crosses by more than the tolerance.

    Level by level first, without tolerance: the usual answer, and numpy is slow along an axis as short as the quantiles'.
    """
    levels = range(values.shape[2] - 1)
    return all(bool((values[:, :, i] <= values[:, :, i + 1]).all()) for i in levels) or not _crossing(values).any()
