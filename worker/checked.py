"""Forecasts that may be published: what the guard has seen, and where each comes from.                          (pure)

Only `forecasting.py` makes these, and the publisher takes nothing else, so no forecast leaves unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.engine import Forecasts
from worker.records import Rejection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Rows of a batch that one engine forecast. rows: intp[n] ascending, None for all; forecasts: of exactly these.

    `fallback_reason`: why not by the serving engine; None if by that one.
    """

    rows: NDArray[np.intp] | None
    forecasts: Forecasts
    fallback_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checked:
    """Every row of a batch is in one of `parts`, or in `rejections` (row, why). Memory as `Forecasts` has it."""

    parts: Sequence[Part]
    rejections: Sequence[tuple[int, Rejection]]
