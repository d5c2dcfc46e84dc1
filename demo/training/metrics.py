"""Accuracy of quantile forecasts, at every level of aggregation that the reports name. Pure numpy.

WAPE is the sum of absolute errors of the median over the sum of actual sales; bias the sum of errors over the same.
The weighted pinball loss is twice the sum of pinball losses over the sum of actual sales, so at the median it equals WAPE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from demo.series import FloatArray
from schemas.accuracy import bias, pinball_losses, wape

LEVELS: Final = (0.1, 0.5, 0.9)
TOPS: Final = (100, 1000, 5000)
_WEEK_DAYS: Final = 7

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """Forecasts of several origins and what came of them.

    forecast: float32[origins, series, 14, 3], quantiles 0.1, 0.5, 0.9. actual: float32[origins, series, 14].
    stocked: bool[origins, series, 14], False on days with any hour out of stock. promo, holiday: likewise, True where there is one.
    stores: int[series], a number per store. volume: float32[series], mean sales before the first origin, which ranks the series.
    """

    forecast: FloatArray
    actual: FloatArray
    stocked: BoolArray
    promo: BoolArray
    holiday: BoolArray
    stores: NDArray[np.int64]
    volume: FloatArray

    def top(self, count: int) -> Outcome:
        """The `count` series of the largest volume."""
        kept = np.argsort(-self.volume, kind="stable")[:count]
        return Outcome(
            forecast=self.forecast[:, kept],
            actual=self.actual[:, kept],
            stocked=self.stocked[:, kept],
            promo=self.promo[:, kept],
            holiday=self.holiday[:, kept],
            stores=self.stores[kept],
            volume=self.volume[kept],
        )


def pinball(forecast: FloatArray, actual: FloatArray, level: float) -> float:
    """Weighted pinball loss of one quantile: twice the summed loss over the summed sales."""
    loss = pinball_losses(forecast, actual, level).sum()
    return 2.0 * float(loss) / float(actual.sum(dtype=np.float64))


def summary(outcome: Outcome) -> dict[str, float]:
    """One line of the accuracy table."""
    median, actual = outcome.forecast[..., 1], outcome.actual
    losses = [pinball(outcome.forecast[..., k], actual, level) for k, level in enumerate(LEVELS)]
    inside = (actual >= outcome.forecast[..., 0]) & (actual <= outcome.forecast[..., 2])
    weeks = (*actual.shape[:2], -1, _WEEK_DAYS)
    return {
        "wape_sku_day": wape(median, actual),
        "wape_sku_week": wape(median.reshape(weeks).sum(3), actual.reshape(weeks).sum(3)),
        "wape_sku_14_days": wape(median.sum(2), actual.sum(2)),
        "wape_store_day": wape(_by_store(median, outcome.stores), _by_store(actual, outcome.stores)),
        "wape_total_day": wape(median.sum(1), actual.sum(1)),
        "wape_total_14_days": wape(median.sum((1, 2)), actual.sum((1, 2))),
        "wape_sku_day_in_stock": wape(median[outcome.stocked], actual[outcome.stocked]),
        "bias": bias(median, actual),
        "bias_in_stock": bias(median[outcome.stocked], actual[outcome.stocked]),
        "pinball_p10": losses[0],
        "pinball_p50": losses[1],
        "pinball_p90": losses[2],
        "pinball": float(np.mean(losses)),
        "coverage_p10_p90": float(inside.mean()),
        "below_p10": float((actual < outcome.forecast[..., 0]).mean()),
        "above_p90": float((actual > outcome.forecast[..., 2]).mean()),
    }


def breakdown(outcome: Outcome) -> dict[str, dict[str, float]]:
    """WAPE per SKU-day by horizon day, and with and without promotion and holiday."""
    median, actual = outcome.forecast[..., 1], outcome.actual
    by_day = {str(day + 1): wape(median[..., day], actual[..., day]) for day in range(actual.shape[2])}
    flags = {"promotion": outcome.promo, "holiday": outcome.holiday}
    by_flag = {
        f"{'' if value else 'no '}{name}": wape(median[flag == value], actual[flag == value])
        for name, flag in flags.items()
        for value in (True, False)
        if (flag == value).any()
    }
    return {"horizon_day": by_day, "kind_of_day": by_flag}


def report(outcome: Outcome) -> dict[str, object]:
    """Everything that is reported of one model on one test set."""
    tops = {str(count): summary(outcome.top(count)) for count in TOPS if count < len(outcome.volume)}
    return {"all": summary(outcome), "top": tops, **breakdown(outcome)}


def _by_store(values: FloatArray, stores: NDArray[np.int64]) -> FloatArray:
    """Sums over the series of each store: [origins, series, 14] -> [origins, stores, 14]."""
    order = np.argsort(stores, kind="stable")
    starts = np.flatnonzero(np.diff(stores[order], prepend=-1))
    summed: FloatArray = np.add.reduceat(values[:, order], starts, axis=1)
    return summed
