"""Sizes from what workers export: histograms of rows in Prometheus' text format.                              (pure)"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from engine_build.errors import TrafficError
from engine_build.traffic import Sizes

Numbers: TypeAlias = NDArray[np.float64]

COMMIT_ROWS: Final = "forecast_worker_commit_rows"
BATCH_ROWS: Final = "forecast_worker_batch_rows"


def demand_from_prometheus(text: str) -> Sizes:
    """Rows per commit window, all workers of `text` added up. A bucket counts as its upper bound: never less than was there.

    Raises `TrafficError` if the text isn't Prometheus', lacks the histogram, or the histogram is empty, or if more than 1 %
    of the commits were larger than all bounds.
    """
    low, high, counts = _histogram(text, COMMIT_ROWS)
    beyond = np.isinf(high)
    if counts[beyond].sum() > 0.01 * counts.sum():
        problem = f"{COMMIT_ROWS}: more than 1 % of the commits had over {low[-1]:,.0f} rows"
        remedy = "shorten delivery.commit_interval_s, or read the demand from the topic with --topic"
        raise TrafficError("metrics", [f"{problem}; {remedy}"])
    return Sizes(rows=np.where(beyond, low, high), counts=counts)


def batches_from_prometheus(text: str) -> Sizes:
    """Rows per batch, all workers of `text` added up. A bucket counts as the geometric mean of its bounds.

    Raises `TrafficError` if the text isn't Prometheus', lacks the histogram, or the histogram is empty.
    """
    low, high, counts = _histogram(text, BATCH_ROWS)
    middle = np.where(np.isinf(high), low, np.where(low < 1, high, np.sqrt(low * np.where(np.isinf(high), low, high))))
    return Sizes(rows=middle, counts=counts)


def _histogram(text: str, metric: str) -> tuple[Numbers, Numbers, Numbers]:
    """Lower and upper bounds and counts of the buckets that aren't empty: float64[buckets] each."""
    cumulative = _cumulative(text, metric)
    bounds = sorted(cumulative)
    counts = [cumulative[bounds[0]], *(cumulative[high] - cumulative[low] for low, high in pairwise(bounds))]
    found = [(low, high, n) for low, high, n in zip([0.0, *bounds], bounds, counts, strict=False) if n > 0]
    if not found:
        raise TrafficError("metrics", [f"{metric} is empty; let workers run for a while"])
    low, high, kept = (np.array(column, np.float64) for column in zip(*found, strict=True))
    return low, high, kept


def _cumulative(text: str, metric: str) -> dict[float, float]:
    """Upper bound -> how many values up to it, all workers added up."""
    try:
        families = [family for family in text_string_to_metric_families(text) if family.name == metric]
    except ValueError as error:
        raise TrafficError(
            "metrics", [f"can't be parsed: {error}; expected the text of a worker's /metrics"]
        ) from error
    cumulative: dict[float, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == f"{metric}_bucket":
            bound = float(sample.labels["le"])
            cumulative[bound] = cumulative.get(bound, 0.0) + sample.value
    if not cumulative:
        raise TrafficError("metrics", [f"got no histogram {metric}, expected one; read /metrics of a worker"])
    return cumulative
