"""Small made-up sales series."""

from __future__ import annotations

from typing import Any

import numpy as np

from demo.series import COVARIATES, SeriesSet


def made_series(
    *, count: int = 4, days: int = 80, covariates: tuple[str, ...] = COVARIATES, seed: int = 0, name: str = "made"
) -> SeriesSet:
    """Series with a weekly pattern, two stores and some noise, from 2020-01-01 on."""
    random = np.random.default_rng(seed)
    week = 10 + 5 * np.sin(np.arange(days) * 2 * np.pi / 7)
    level = 1 + np.arange(count)[:, None]
    values: dict[str, Any] = {
        "promo": random.integers(0, 2, (count, days)),
        "discount": random.uniform(0.5, 1, (count, days)),
        "holiday": (random.uniform(size=(count, days)) < 0.05).astype(np.float32),
        "temperature": random.normal(15, 5, (count, days)),
    }
    return SeriesSet(
        name=name,
        sku_ids=tuple(f"sku-{index // 2}" for index in range(count)),
        store_ids=tuple(f"störe-{index % 2}" for index in range(count)),
        dates=np.arange(18262, 18262 + days, dtype=np.int32),
        sales=(level * week + random.uniform(0, 2, (count, days))).astype(np.float32),
        **{key: values[key].astype(np.float32) for key in covariates},
    )
