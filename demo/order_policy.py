"""From forecast quantiles to a quantity: order-up-to levels for what keeps, the newsvendor's for what doesn't. (pure)

Every `review_days` an order is placed in the evening; its goods are there after `lead_days` further days of selling (0: the
next morning). What is there and on its way must last until the next order's goods come: `lead_days + review_days` days.

**What keeps** follows the periodic-review order-up-to policy, (R, S): order what is missing to

    S = demand expected in lead time and review period + safety stock

(Silver, Pyke, Thomas, *Inventory and Production Management in Supply Chains*, 4th edition 2017, chapter on individual items
with probabilistic demand). **What spoils overnight** is a newsvendor's: order the demand's quantile at the critical ratio

    critical ratio = cost of a unit too few / (cost of a unit too few + cost of a unit too many)

(Arrow, Harris, Marschak, *Optimal Inventory Policy*, Econometrica 19(3), 1951). Both are the same here: S is the quantile
at `critical_ratio` of the demand of the days to be covered, and the safety stock is its distance from the median. They differ
in what counts as there: what spoils overnight is ordered every evening for the next day, and what is left doesn't count.

**One day's quantile** at any level t is read off P10, P50 and P90 along the normal distribution's, on each side of the
median by itself, so that a skewed forecast stays skewed and the three given quantiles are met exactly:

    q(t) = P50 + z(t) * (P90 - P50) / z(0.9)   for t >= 0.5;   q(t) = P50 + z(t) * (P50 - P10) / z(0.9)   below

Beyond P10 and P90 that is an extrapolation of the forecast, not a part of it.

**Several days** don't add up by adding quantiles: that would assume that all days go wrong together. Neither are they
independent: a level that is too low on Monday is too low on Tuesday. So each pair of days is taken to be correlated by
`error_correlation` r, and with s(d) the day's spread on the side of t (the bracket above / z(0.9))

    S(t) = sum of P50 + z(t) * sqrt((1 - r) * sum of s(d)^2 + r * (sum of s(d))^2)

which is the variance of a sum of equally correlated variables. r = 1 adds the quantiles up, r = 0 takes the days as
independent. docs/replenishment.md has the value measured for the bakery. The medians are added as they are; where demand
is skewed to the right the sum's median lies a little above that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
LEVELS: Final = (0.1, 0.5, 0.9)
"""The quantiles that a forecast must have."""

_NORMAL: Final = NormalDist()
_Z90: Final = _NORMAL.inv_cdf(0.9)


class PolicyError(ValueError):
    """A policy that can't be followed. The message names every problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a store orders. Raises `PolicyError` naming all values that don't fit.

    lead_days: days of selling between an order and its goods, 0 for the next morning. review_days: from one order to the
    next. critical_ratio: 0 to 1, exclusive. perishable: what is left in the evening is waste. error_correlation: 0 to 1, see
    above. pack: units come in multiples of it. max_age_days: days that a forecast's as_of may lie back. flagged: what
    becomes of a forecast that says that another model than the serving one made it; `widen` multiplies the safety stock
    by `widening`.
    """

    lead_days: int = 0
    review_days: int = 1
    critical_ratio: float = 0.8
    perishable: bool = False
    error_correlation: float = 0.2
    pack: float = 1.0
    max_age_days: int = 2
    flagged: Literal["refuse", "widen"] = "refuse"
    widening: float = 1.5

    def __post_init__(self) -> None:
        wanted = {
            "lead_days": (self.lead_days >= 0, "0 or more"),
            "review_days": (self.review_days >= 1, "1 or more"),
            "critical_ratio": (0.0 < self.critical_ratio < 1.0, "between 0 and 1"),
            "error_correlation": (0.0 <= self.error_correlation <= 1.0, "0 to 1"),
            "pack": (0.0 < self.pack < math.inf, "above 0"),
            "max_age_days": (self.max_age_days >= 0, "0 or more"),
            "flagged": (self.flagged in {"refuse", "widen"}, "refuse or widen"),
            "widening": (1.0 <= self.widening < math.inf, "1 or more"),
        }
        wrong = [
            f"{name}: got {getattr(self, name)}, expected {text}" for name, (fits, text) in wanted.items() if not fits
        ]
        if self.perishable and (self.lead_days, self.review_days) != (0, 1):
            wrong.append(
                f"perishable: got lead_days {self.lead_days} and review_days {self.review_days}, expected 0 and 1: "
                "what spoils overnight is ordered every evening for the next day"
            )
        if wrong:
            raise PolicyError("; ".join(wrong))

    @property
    def covered_days(self) -> int:
        """Days that an order must cover, from the day after it on: lead time and review period."""
        return self.lead_days + self.review_days

    def position(self, on_hand: float, on_order: float) -> float:
        """Units that count as there: of what spoils overnight only what is on its way, less what is owed (on_hand below 0)."""
        return on_order + (min(on_hand, 0.0) if self.perishable else on_hand)

    def quantity(self, order_up_to: float, position: float) -> float:
        """Units to order: what is missing, in whole packs; 0 if nothing is."""
        missing = order_up_to - position
        # A millionth of a pack is what is left of float32, not a reason to open another one.
        return max(math.ceil(missing / self.pack - 1e-6), 0) * self.pack


def order_up_to(
    quantiles: FloatArray, critical_ratio: float, *, error_correlation: float, widening: float = 1.0
) -> float:
    """S: the quantile at `critical_ratio` of the days' summed demand, never below 0. Units of the forecast.

    quantiles: float32[3, days], P10, P50, P90 of the days that are covered. widening: factor on the distance from the median.
    """
    z = _NORMAL.inv_cdf(critical_ratio)
    low, middle, high = quantiles.astype(np.float64)
    spread = ((high - middle) if z >= 0 else (middle - low)) / _Z90
    together = math.sqrt(
        (1.0 - error_correlation) * float((spread**2).sum()) + error_correlation * float(spread.sum()) ** 2
    )
    return max(float(middle.sum()) + widening * z * together, 0.0)


def daily_quantile(quantiles: FloatArray, critical_ratio: float) -> FloatArray:
    """q(t) of many days at once: float32[..., 3] -> float32[...], never below 0."""
    z = np.float32(_NORMAL.inv_cdf(critical_ratio) / _Z90)
    low, middle, high = (quantiles[..., k] for k in range(len(LEVELS)))
    spread = (high - middle) if z >= 0 else (middle - low)
    return np.maximum(middle + z * spread, np.float32(0.0))


def three_quantiles(levels: Sequence[float], quantiles: Sequence[Sequence[float]]) -> FloatArray | None:
    """P10, P50 and P90 of a forecast that may have others, too: float32[3, days]; None if it lacks one, or breaks a rule.

    The rules: as many days for all, finite, not negative, ascending.
    """
    rows = {round(float(level), 3): row for level, row in zip(levels, quantiles, strict=False)}
    if any(level not in rows for level in LEVELS) or len({len(rows[level]) for level in LEVELS}) != 1:
        return None
    found = np.array([rows[level] for level in LEVELS], dtype=np.float32)
    sound = np.isfinite(found).all() and (found >= 0).all() and (np.diff(found, axis=0) >= 0).all()
    return found if sound else None
