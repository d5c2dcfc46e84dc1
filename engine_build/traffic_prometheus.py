"""Sizes from what workers export: the histogram of rows in Prometheus' text format.                           (pure)"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from engine_build.errors import TrafficError
from engine_build.traffic import Sizes

BATCH_ROWS: Final = "forecast_worker_batch_rows"


def sizes_from_prometheus(text: str, metric: str = BATCH_ROWS) -> Sizes:
    """The histogram `metric`, all workers of `text` added up. A bucket counts as the geometric mean of its bounds.

    Raises `TrafficError` if the text isn't Prometheus', lacks the histogram, or the histogram is empty.
    """
    try:
        samples = [
            s for family in text_string_to_metric_families(text) if family.name == metric for s in family.samples
        ]
    except ValueError as error:
        raise TrafficError(
            "metrics", [f"can't be parsed: {error}; expected the text of a worker's /metrics"]
        ) from error
    cumulative: dict[float, float] = {}
    for sample in samples:
        if sample.name == f"{metric}_bucket":
            bound = float(sample.labels["le"])
            cumulative[bound] = cumulative.get(bound, 0.0) + sample.value
    if not cumulative:
        raise TrafficError("metrics", [f"got no histogram {metric}, expected one; read /metrics of a worker"])
    bounds = sorted(cumulative)
    counts = [cumulative[bounds[0]], *(cumulative[high] - cumulative[low] for low, high in pairwise(bounds))]
    found = [
        (_middle(low, high), count)
        for low, high, count in zip([0.0, *bounds], bounds, counts, strict=False)
        if count > 0
    ]
    if not found:
        raise TrafficError("metrics", [f"{metric} is empty; let workers run for a while"])
    return Sizes(rows=np.array([rows for rows, _ in found]), counts=np.array([count for _, count in found]))


def _middle(low: float, high: float) -> float:
    if high == float("inf"):
        return low
    return high if low < 1 else float(np.sqrt(low * high))
