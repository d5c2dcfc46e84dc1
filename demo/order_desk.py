"""What is to be ordered, from the latest forecasts, the stock and what was proposed before. (pure)

One desk holds the tables of one partition: forecasts and stock by key, and the proposals as they stand on the topic. Its
decisions depend on these tables, the policy and the day alone, so a desk that is rebuilt from the topics decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from demo.order_policy import FloatArray, Policy, order_up_to

Value = TypeVar("Value")

Change = tuple[bytes, "Proposal | None"]
"""Key, and the proposal that replaces the one before; None withdraws it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """A forecast as far as ordering needs it. as_of: days since 1970-01-01; day 1 of the quantiles is as_of + 1.

    quantiles: float32[3, days], P10, P50, P90 in units a day; None if what was forecast can't be ordered by.
    """

    sku_id: str
    store_id: str
    as_of: int
    quantiles: FloatArray | None
    fallback_reason: str | None
    model: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Units of one SKU in one store."""

    on_hand: float
    on_order: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The fields of `schemas/order_proposal.avsc`; days since 1970-01-01."""

    sku_id: str
    store_id: str
    day: int
    quantity: float
    order_up_to: float
    position: float
    refusal: str | None
    forecast_as_of: int
    model: str
    forecast_partition: int
    forecast_offset: int

    def says_the_same(self, other: Proposal | None) -> bool:
        """Whether whoever orders would do the same: same day, same quantity, same refusal."""
        return other is not None and (self.day, self.quantity, self.refusal) == (
            other.day,
            other.quantity,
            other.refusal,
        )


@dataclass(slots=True, kw_only=True)
class OrderDesk:
    """The tables of one partition by message key; `published` is what the proposals' topic holds."""

    policy: Policy
    forecasts: dict[bytes, Forecast] = field(default_factory=dict)
    stock: dict[bytes, Stock] = field(default_factory=dict)
    published: dict[bytes, Proposal] = field(default_factory=dict)

    def keys(self) -> set[bytes]:
        """All keys that there is something to decide about."""
        return self.forecasts.keys() | self.stock.keys() | self.published.keys()

    def changes(self, keys: Iterable[bytes], today: int) -> list[Change]:
        """What must be published about `keys`, in their order, for the topic to hold what is decided today."""
        found: list[Change] = []
        for key in sorted(keys):
            proposal, before = self.decide(key, today), self.published.get(key)
            if proposal is None and before is not None:
                found.append((key, None))
            elif proposal is not None and not proposal.says_the_same(before):
                found.append((key, proposal))
        return found

    def settle(self, changes: Iterable[Change]) -> None:
        """The changes are on the topic now."""
        for key, proposal in changes:
            put(self.published, key, proposal)

    def decide(self, key: bytes, today: int) -> Proposal | None:
        """What to order of `key` in the evening of `today`; None without forecast or stock: delisted, or not stocked there."""
        forecast, stock = self.forecasts.get(key), self.stock.get(key)
        if forecast is None or stock is None:
            return None
        position = self.policy.position(stock.on_hand, stock.on_order)
        quantiles, refusal = usable(forecast, self.policy, today)
        level = 0.0
        if quantiles is not None:
            level = order_up_to(
                quantiles,
                self.policy.critical_ratio,
                error_correlation=self.policy.error_correlation,
                widening=1.0 if forecast.fallback_reason is None else self.policy.widening,
            )
        return Proposal(
            sku_id=forecast.sku_id,
            store_id=forecast.store_id,
            day=today,
            quantity=self.policy.quantity(level, position) if refusal is None else 0.0,
            order_up_to=level,
            position=position,
            refusal=refusal,
            forecast_as_of=forecast.as_of,
            model=forecast.model,
            forecast_partition=forecast.partition,
            forecast_offset=forecast.offset,
        )


def usable(forecast: Forecast, policy: Policy, today: int) -> tuple[FloatArray | None, str | None]:
    """The quantiles of the days to be covered, float32[3, days]; or None and why the forecast is refused."""
    age, days = today - forecast.as_of, policy.covered_days
    if forecast.quantiles is None:
        return None, "unusable: not three ascending quantiles 0.1, 0.5, 0.9 of the same days"
    if age < 0:
        return None, f"from_the_future: made {-age} days after the day of the order"
    if age > policy.max_age_days:
        return None, f"too_old: made {age} days before, allowed are {policy.max_age_days}"
    if forecast.fallback_reason is not None and policy.flagged == "refuse":
        return None, f"flagged: {forecast.fallback_reason}"
    known = forecast.quantiles.shape[1] - age
    if known < days:
        return None, f"too_short: {max(known, 0)} days from now on, {days} are to be covered"
    return forecast.quantiles[:, age : age + days], None


def put(table: dict[bytes, Value], key: bytes, value: Value | None) -> None:
    """What a message of a compacted topic does to a table: a null takes the key out."""
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
