"""`[guard]`: what a forecast may look like.                                                                      (pure)

The defaults come from measurements on real data: docs/guard.md has them, `python -m bench guard` makes them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.settings_section import Section


class GuardSettings(Section):
    """What a forecast may look like before it is published. docs/guard.md explains the rules and where the numbers come from."""

    explosion_factor: float = Field(
        default=25.0,
        gt=1,
        allow_inf_nan=False,
        description="a row's highest quantile may be so many times the largest day of its own history",
    )
    least_sales: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="a history without a larger day counts as this in `explosion_factor`, units per day",
    )
    least_mean: float = Field(
        default=0.05,
        gt=0,
        allow_inf_nan=False,
        description="rows that sold less per day lately don't count in the window's figures, units per day",
    )
    window_rows: int = Field(default=4096, ge=1, description="the distribution is judged over so many last rows")
    least_rows: int = Field(default=64, ge=1, description="and not before so many rows")
    full_rows: int = Field(
        default=2048,
        ge=1,
        description="the limits below hold from so many rows in the window; over n rows they are wider by sqrt(full_rows / n)",
    )
    drift_index: float = Field(
        default=0.4,
        gt=0,
        allow_inf_nan=False,
        description="largest stability index of log(forecast / recent mean) against the card's reference",
    )
    jump_index: float = Field(
        default=0.4,
        gt=0,
        allow_inf_nan=False,
        description="largest stability index of a new version's window against the last one of the version before",
    )
    shift: float = Field(
        default=0.16,
        gt=0,
        allow_inf_nan=False,
        description="largest distance of the mean of log(forecast / recent mean) from the card's",
    )
    weekday_lag: float = Field(
        default=0.03,
        gt=0,
        le=2,
        description="forecasts may correlate by so much more with other weekdays of the histories than with the same ones",
    )
    canary_rows: int = Field(
        default=256,
        ge=0,
        description="of a new version, so many first rows are also forecast by the version before and compared; 0: none",
    )
    canary_difference: float = Field(
        default=0.5,
        gt=0,
        le=2,
        description="the two may differ by this share of the mean of both; over n rows, by sqrt(canary_rows / n) times as much",
    )
    canary_days: float = Field(
        default=0.2,
        gt=0,
        le=0.5,
        description="and be so many days late or early against each other; widened likewise, to half a day at most",
    )
    fault_share: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="roll back above this share of rows that only the backup could forecast, over `window_rows`",
    )
    poison_rows: int = Field(
        default=8,
        ge=1,
        description="a failed batch is searched for so many guilty rows; with more, the engine is to blame",
    )
    latency_batches: int = Field(
        default=50,
        ge=1,
        description="roll back when over half of so many last batches took longer than the card's budget",
    )
    without_backup: Literal["stop", "publish"] = Field(
        default="stop",
        description="what a distribution that drifted does when there is no backup: `stop` consuming (on a store of versions until another "
        "one can serve, else until a restart), or only count it",
    )
