"""Forecasts of a task put side by side with what was sold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demo.series import HORIZON_DAYS, FloatArray, SeriesSet
from demo.training.metrics import Outcome

if TYPE_CHECKING:
    from demo.training.tasks import Task


def outcome(task: Task, data: SeriesSet, forecast: FloatArray, start: int) -> Outcome:
    """`forecast` float32[origins, series, 14, 3] of the period that begins on day `start`, with its actual sales."""
    origins = task.origins_from(start)

    def ahead(grid: FloatArray | None, neutral: float) -> FloatArray:
        values = np.full_like(data.sales, neutral) if grid is None else grid
        return np.stack([values[:, day + 1 : day + 1 + HORIZON_DAYS] for day in origins])

    _, stores = np.unique(np.array(data.store_ids), return_inverse=True)
    return Outcome(
        forecast=forecast,
        actual=ahead(data.sales, 0.0),
        stocked=ahead(data.in_stock, 1.0) >= 1.0,
        promo=ahead(data.promo, 0.0) > 0.5,
        holiday=ahead(data.holiday, 0.0) > 0.5,
        stores=stores.astype(np.int64),
        volume=data.sales[:, :start].mean(axis=1),
    )
