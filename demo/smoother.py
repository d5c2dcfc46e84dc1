"""The light model of the benches and the tests: a weekday-profile smoother with empirical quantiles, in numpy.

About a microsecond a row; the trained models are better and cost hundreds. `smoother_graph.py` is the same as ONNX.

From the last 28 days it takes a profile of the seven weekdays (weighted mean and median of four values each, public
holidays left out), scales it to the level of the last days, and repeats it over the next 14. Public holidays ahead are
damped, the days before them raised. The spread comes from the window's own residuals, shrunk to a typical one, times
factors per day ahead that are quantiles of past errors. Everything is relative, so units don't matter.

    python -m demo.smoother --out models/bakery-smoother      fits its constants and writes model.onnx and card.json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from demo.series import HISTORY_DAYS, HORIZON_DAYS, FloatArray

QUANTILES: Final = (0.1, 0.5, 0.9)
WEEKS: Final = 4
SKIPPED_DAYS: Final = HISTORY_DAYS - 7 * WEEKS
TINY: Final = 1e-6
LEVEL_BOUNDS: Final = (0.5, 2.0)
INPUTS: Final = {"sales": HISTORY_DAYS, "holiday": HISTORY_DAYS, "holiday_next": HORIZON_DAYS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What the model knows beside the event; `smoother_fit.fit` finds it.

    week_weights: of the four weeks in the profile's mean, oldest first. median_share: of the median in the profile.
    decay_days: of the weights that find the level. level_shrink: weight (in days) of the level being the profile's own.
    level_power: 0 keeps the profile's level, 1 takes that of the last days. eve: log factor of the day before a public
    holiday. holiday_factor: sales on a public holiday as a share of the profile.
    spread, spread_shrink: typical relative error and its weight in days. holiday_spread: what a holiday adds to it.
    lower, upper: per day ahead, how many spreads below and above the median the outer quantiles lie.
    """

    week_weights: tuple[float, float, float, float] = (0.5, 0.7, 0.9, 1.0)
    median_share: float = 0.5
    decay_days: float = 7.0
    level_shrink: float = 2.0
    level_power: float = 0.7
    eve: float = 0.15
    holiday_factor: float = 0.4
    spread: float = 0.4
    spread_shrink: float = 8.0
    holiday_spread: float = 0.5
    lower: tuple[float, ...] = (1.0,) * HORIZON_DAYS
    upper: tuple[float, ...] = (1.2,) * HORIZON_DAYS

    @property
    def recency(self) -> FloatArray:
        """Weights of the 28 days that find the level: float32[4, 7], the newest is 1."""
        age_days = np.arange(7 * WEEKS - 1, -1, -1, dtype=np.float32)
        weights: FloatArray = np.exp(-age_days / self.decay_days).astype(np.float32)
        return weights.reshape(WEEKS, 7)


def forecast(constants: Constants, sales: FloatArray, holiday: FloatArray, holiday_next: FloatArray) -> FloatArray:
    """Quantiles 0.1, 0.5, 0.9: float32[rows, 14, 3], ascending and not negative. Units of `sales`.

    sales, holiday: float32[rows, 30]; holiday_next: float32[rows, 14], where above 0.5 counts as a public holiday.
    """
    middle, spread = median_and_spread(constants, sales, holiday, holiday_next)
    low = np.maximum(middle - np.array(constants.lower, dtype=np.float32) * spread, 0)
    high = middle + np.array(constants.upper, dtype=np.float32) * spread
    return np.stack([low, middle, high], axis=2).astype(np.float32)


def median_and_spread(
    constants: Constants, sales: FloatArray, holiday: FloatArray, holiday_next: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The middle quantile and the spread around it, both float32[rows, 14], in units of `sales`."""
    public, public_next = public_share(holiday[:, SKIPPED_DAYS:]), public_share(holiday_next)
    following = np.hstack([public[:, 1:], public_next[:, :1]])
    following_next = np.hstack([public_next[:, 1:], np.zeros_like(public_next[:, :1])])
    usual = (sales[:, SKIPPED_DAYS:] / np.exp(constants.eve * following * (1 - public))).reshape(-1, WEEKS, 7)
    open_share = (1 - public).reshape(-1, WEEKS, 7)

    weights = np.array(constants.week_weights, dtype=np.float32).reshape(1, WEEKS, 1) * open_share
    mean = (weights * usual).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-3)
    filled = open_share * usual + (1 - open_share) * mean[:, None]
    median = (filled.sum(axis=1) - filled.max(axis=1) - filled.min(axis=1)) / 2  # of four: the middle two
    profile = constants.median_share * median + (1 - constants.median_share) * mean
    typical = profile.mean(axis=1, keepdims=True)

    recency = constants.recency * open_share
    pull = constants.level_shrink * typical + TINY
    seen = (recency * usual).sum(axis=(1, 2))[:, None] + pull
    expected = (recency * profile[:, None]).sum(axis=(1, 2))[:, None] + pull
    level = np.clip(seen / expected, *LEVEL_BOUNDS) ** constants.level_power

    residual = open_share * (usual - profile[:, None]) ** 2
    scale = np.sqrt(profile * typical + TINY)  # between an error that grows with the day's sales and one that doesn't
    relative = residual.sum(axis=(1, 2))[:, None] / (7 * (scale**2).mean(axis=1, keepdims=True))
    days = open_share.sum(axis=(1, 2))[:, None] / 7
    prior = constants.spread_shrink / 7
    error = np.sqrt((relative + prior * constants.spread**2) / (days + prior))

    week = profile * level
    ahead = np.tile(week, 2)
    factor = np.exp(constants.eve * following_next * (1 - public_next))
    middle = ahead * factor * (1 - public_next * (1 - constants.holiday_factor))
    spread = np.tile(scale, 2) * error + constants.holiday_spread * public_next * ahead
    return middle.astype(np.float32), spread.astype(np.float32)


def public_share(holiday: FloatArray) -> FloatArray:
    """How much of a public holiday each day is: 0 up to 0.5 (school holidays), then rising to 1."""
    return np.maximum(2 * holiday - 1, 0)


def main() -> None:
    """Fit to the bakery data before the demo's days and write the model's folder."""
    from demo import bakery, smoother_fit  # noqa: PLC0415 - both import this module

    parser = argparse.ArgumentParser(description="Fit the demo's first model and write model.onnx and card.json.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--days", type=int, default=60, help="days at the end that the model must not have seen")
    arguments = parser.parse_args()
    card = smoother_fit.build(bakery.load(), test_days=arguments.days, out=arguments.out)
    accuracy = card.accuracy["fp32"]
    print(f"{arguments.out}: WAPE {accuracy.wape:.3f} per day, {accuracy.wape_total:.3f} per 14 days")


if __name__ == "__main__":
    main()
