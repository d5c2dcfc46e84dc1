"""What ordering by a forecast would have brought: the bakery's last weeks, every product baked to order for one day. (pure)

Perishable goods: what is ordered in the evening is sold on the next day, and what is left at night is waste. So each
day is a newsvendor's: order the demand's quantile at the critical ratio (`order_policy.py`). All policies order for the same
series and days, at the same ratio, from what was known at the same time: the newest forecast's `as_of`.

Where the quantiles come from: the model forecasts them. Seasonal naive and the 28-day mean forecast one number; theirs is that
number times the quantile, at the critical ratio, of actual / forecast of the same rule, all series together, per day ahead, in
the eight weeks before the first day judged. Perfect foresight orders what was sold.

What was sold stands for the demand, and that is too little wherever a shop sold out: more could have been sold, nobody
knows how much. So lost sales are understated and what seems wasted may have found a buyer, for all policies alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from demo.evaluation import BASELINES
from demo.order_policy import daily_quantile
from demo.series import HORIZON_DAYS, FloatArray, SeriesSet

CRITICAL_RATIO: Final = 0.8
"""A sale that is lost costs four times what a unit in the waste costs."""

CURVE_RATIOS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_CALIBRATION_DAYS: Final = 56

Orders = Callable[[float], FloatArray]
"""Critical ratio -> units ordered: float32[days, series]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one policy brought at one critical ratio. Units as in the data; shares are 0 to 1.

    served: share of the demand that was sold (unit fill rate). days_covered: share of the days with demand on which nothing
    ran out. waste: share of what was ordered that was left. lost_units, wasted_units: sums over days and series.
    cost: (ratio x lost + (1 - ratio) x wasted) / demand, which is what the newsvendor minimises.
    """

    name: str
    ratio: float
    served: float
    days_covered: float
    waste: float
    lost_units: float
    wasted_units: float
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """table: all policies at `CRITICAL_RATIO`. curves: name -> results at `CURVE_RATIOS`, ascending.

    first_day, last_day: of the orders' days, days since 1970-01-01. days_after: how many of them, the last ones, are ordered for
    from the newest forecast there is, which is older than the evening before. demand_units: sold on these days.
    """

    table: Sequence[Result]
    curves: Mapping[str, Sequence[Result]]
    first_day: int
    last_day: int
    days_after: int
    series: int
    demand_units: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The days to order for, and from which forecast: int arrays of equal length.

    origin: index of the newest forecast made before the day. ahead: days from its as_of to the day, 1 to 14.
    """

    days: Sequence[int]
    origin: Sequence[int]
    ahead: Sequence[int]


def slots_of(as_of_dates: Sequence[int]) -> Slots:
    """Every day from the first forecast's first to the last one's last. `as_of_dates` ascend, no two 14 days apart."""
    days = list(range(as_of_dates[0] + 1, as_of_dates[-1] + HORIZON_DAYS + 1))
    origin = [int(place) for place in np.searchsorted(as_of_dates, days, side="left") - 1]
    return Slots(
        days=days, origin=origin, ahead=[day - as_of_dates[place] for day, place in zip(days, origin, strict=True)]
    )


def run(series: SeriesSet, as_of_dates: Sequence[int], forecasts: FloatArray) -> Backtest:
    """Order by the model's forecasts, by both rules and by perfect foresight.

    forecasts: float32[dates, series, 14, 3], P10, P50, P90 made on `as_of_dates`. Series that lack one are left out, for all.
    Raises `ValueError` if no series has all of them, or the data don't reach back far enough to calibrate the rules.
    """
    known = np.flatnonzero(np.isfinite(forecasts).all(axis=(0, 2, 3)))
    if len(known) == 0:
        raise ValueError(f"{series.name}: no series has a forecast on each of the {len(as_of_dates)} days")
    series, forecasts = series.select(known), forecasts[:, known]
    slots = slots_of(as_of_dates)
    demand = series.sales[:, np.array(slots.days) - int(series.dates[0])].T
    picked = forecasts[slots.origin, :, np.array(slots.ahead) - 1]
    policies: dict[str, Orders] = {"model": lambda ratio: daily_quantile(picked, ratio)}
    policies |= {name: _rule(series, as_of_dates, slots, rule) for name, rule in BASELINES.items()}
    results = {
        name: [result_of(name, ratio, orders(ratio), demand) for ratio in CURVE_RATIOS]
        for name, orders in policies.items()
    }
    perfect = result_of("perfect foresight", CRITICAL_RATIO, demand, demand)
    return Backtest(
        table=[*(each[CURVE_RATIOS.index(CRITICAL_RATIO)] for each in results.values()), perfect],
        curves=results,
        first_day=slots.days[0],
        last_day=slots.days[-1],
        days_after=sum(ahead > 1 for ahead in slots.ahead),
        series=len(series),
        demand_units=float(demand.sum(dtype=np.float64)),
    )


def result_of(name: str, ratio: float, ordered: FloatArray, demand: FloatArray) -> Result:
    """ordered, demand: float32[days, series], not negative. Shares of nothing are those of perfection: 1 served, 0 waste."""
    ordered, demand = ordered.astype(np.float64), demand.astype(np.float64)
    lost, wasted = np.maximum(demand - ordered, 0.0), np.maximum(ordered - demand, 0.0)
    selling, wanted, baked = demand > 0, float(demand.sum()), float(ordered.sum())
    return Result(
        name=name,
        ratio=ratio,
        served=1.0 - float(lost.sum()) / wanted if wanted else 1.0,
        days_covered=float((lost[selling] == 0).mean()) if selling.any() else 1.0,
        waste=float(wasted.sum()) / baked if baked else 0.0,
        lost_units=float(lost.sum()),
        wasted_units=float(wasted.sum()),
        cost=float((ratio * lost + (1.0 - ratio) * wasted).sum()) / wanted if wanted else 0.0,
    )


def _rule(
    series: SeriesSet, as_of_dates: Sequence[int], slots: Slots, rule: Callable[[FloatArray], FloatArray]
) -> Orders:
    """Orders by a rule that forecasts one number, made a quantile by its own past errors."""
    made = np.stack([rule(series.windows(as_of)["sales"]) for as_of in as_of_dates])
    picked = made[slots.origin, :, np.array(slots.ahead) - 1]
    # The last day of the youngest window is the first forecast's as_of: nothing of the days judged is seen.
    last = as_of_dates[0] - HORIZON_DAYS
    past = [last - back for back in range(_CALIBRATION_DAYS)]
    forecast = np.stack([rule(series.windows(as_of)["sales"]) for as_of in past])
    actual = np.stack([series.actuals(as_of) for as_of in past])
    share = np.where(forecast > 0, actual / np.maximum(forecast, np.float32(1e-6)), np.nan)

    def orders(ratio: float) -> FloatArray:
        factors = np.nanquantile(share, ratio, axis=(0, 1)).astype(np.float32)
        ordered: FloatArray = picked * factors[np.array(slots.ahead) - 1][:, None]
        return ordered

    return orders
