"""Several measurements of one thing, in the numbers that are reported.                                          (pure)"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 99)


def spread(values: Sequence[float]) -> Mapping[str, float]:
    """Median, least and greatest. Raises `ValueError` if there are no values."""
    if not values:
        raise ValueError("got no values, expected at least one")
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """`p50`, `p90`, `p99` (the least value that so many per cent of all don't exceed) and `max`. Raises `ValueError`."""
    if not values:
        raise ValueError("got no values, expected at least one")
    ordered = sorted(values)
    # -(-a // b) rounds up.
    found = {f"p{share}": ordered[-(-len(ordered) * share // 100) - 1] for share in PERCENTILES}
    return {**found, "max": ordered[-1]}


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """By how much y grows per x, by least squares. Raises `statistics.StatisticsError` with fewer than two points."""
    return statistics.linear_regression(xs, ys).slope


def quantiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Count, and how long the steps took, seconds. Only the count if there are none."""
    if not len(seconds):
        return {"steps": 0}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {"steps": len(seconds), **{name: float(np.quantile(seconds, share)) for name, share in shares.items()}}
