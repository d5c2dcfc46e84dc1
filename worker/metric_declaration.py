"""What a metric is declared as.                                                                                    (pure)"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from worker.statistics import Histogram, Statistics

Samples = Iterable[tuple[tuple[str, ...], float | Histogram]]
"""(label values, value) of one metric. For an info metric the labels are all there is; its value is 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One metric. `name` is what Prometheus shows (for a histogram without `_bucket`, `_sum`, `_count`).

    read(statistics, now_s): its samples now; none if there is nothing to say yet.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    read: Callable[[Statistics, float], Samples]
