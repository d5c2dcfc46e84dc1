"""How a shadow's forecasts differ from the serving version's, and whether that is within bounds.                 (pure)

All measures are relative to the serving version, because what was really sold isn't known yet:

- wape: sum of |shadow - serving| over the sum of the serving version's medians;
- bias: sum of (shadow - serving) over the same sum;
- width_ratio: the shadow's distance of the outer quantiles, summed, over the serving version's;
- latency_ratio: seconds of a full batch when proven, over the serving version's.

Besides, the shadow may not be days behind the serving version (`day_lag.py`): one that is may be within all of these.

Sums run over rows and days of the middle quantile (the upper one of the two middle ones if their number is even).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.day_lag import MOST_DAYS, DayLag
from worker.model_status import Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is allowed after `rows` rows. See `ShadowSettings` for each."""

    rows: int
    max_wape: float
    max_bias: float
    max_width_ratio: float
    max_latency_ratio: float


class Comparison:
    """Sums over the batches compared so far.

    latency_ratio: known before the first batch; NaN if it isn't known.
    """

    def __init__(self, bounds: Bounds, latency_ratio: float) -> None:
        self._bounds = bounds
        self._latency_ratio = latency_ratio
        self._rows = 0
        self._serving = self._apart = self._shifted = 0.0
        self._serving_width = self._shadow_width = 0.0
        self._lag = DayLag()

    def add(self, serving: NDArray[np.float32], shadow: NDArray[np.float32]) -> None:
        """Take one batch: both float32[rows, horizon, quantiles] of the same events. Raises `ValueError` if shapes differ."""
        if serving.shape != shadow.shape:
            raise ValueError(f"shape: got {shadow.shape}, the serving version gives {serving.shape}")
        middle = serving.shape[2] // 2
        first = serving[:, :, middle].astype(np.float64)
        second = shadow[:, :, middle].astype(np.float64)
        self._rows += len(serving)
        self._lag.add(first, second)
        self._serving += float(np.abs(first).sum())
        self._apart += float(np.abs(second - first).sum())
        self._shifted += float((second - first).sum())
        self._serving_width += float((serving[:, :, -1] - serving[:, :, 0]).sum(dtype=np.float64))
        self._shadow_width += float((shadow[:, :, -1] - shadow[:, :, 0]).sum(dtype=np.float64))

    @property
    def difference(self) -> Difference:
        """So far."""
        return Difference(
            rows=self._rows,
            wape=_ratio(self._apart, self._serving),
            bias=_ratio(self._shifted, self._serving),
            width_ratio=_ratio(self._shadow_width, self._serving_width),
            latency_ratio=self._latency_ratio,
        )

    @property
    def complete(self) -> bool:
        """True once enough rows were compared for a verdict."""
        return self._rows >= self._bounds.rows

    def verdict(self) -> str | None:
        """Why it must not serve, with the figures; None if it may. Worth asking once `complete`."""
        found, bounds = self.difference, self._bounds
        # A measure that isn't a number is outside any bound, but for those that can't be known: one quantile has no width.
        broken = []
        if not found.wape <= bounds.max_wape:
            broken.append(f"difference from the serving version {found.wape:.3f}, allowed {bounds.max_wape:g}")
        if not abs(found.bias) <= bounds.max_bias:
            broken.append(f"bias {found.bias:+.3f}, allowed ±{bounds.max_bias:g}")
        widest = bounds.max_width_ratio
        if self._serving_width > 0 and not 1 / widest <= found.width_ratio <= widest:
            broken.append(
                f"quantiles {found.width_ratio:.3f} times as far apart, allowed {1 / widest:.2f} to {widest:g}"
            )
        if found.latency_ratio > bounds.max_latency_ratio:
            broken.append(
                f"a full batch takes {found.latency_ratio:.1f} times as long, allowed {bounds.max_latency_ratio:g}"
            )
        days = self._lag.days
        if days is not None and abs(days) > MOST_DAYS:
            broken.append(f"{abs(days):.2f} days {'late' if days > 0 else 'early'}, allowed {MOST_DAYS:g}")
        return None if not broken else f"shadow over {found.rows} rows: {'; '.join(broken)}"


def _ratio(part: float, whole: float) -> float:
    """Part / whole; 0 if both are 0 (they agree), infinite if only `whole` is."""
    if whole > 0:
        return part / whole
    return 0.0 if part == 0 else math.copysign(math.inf, part)
