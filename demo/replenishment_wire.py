"""The three topics of replenishment as values: forecasts and stock in, proposals out and, after a restart, in again. (pure)"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Final

from demo.order_desk import Forecast, Proposal, Stock
from demo.order_policy import three_quantiles
from demo.single_object import ForeignValueError, SingleObject
from schemas.load import load_schema

SCHEMAS: Final = Path(__file__).parent / "schemas"

_FORECASTS: Final = SingleObject(load_schema(None, "sku_forecast"))
_STOCK: Final = SingleObject(load_schema(SCHEMAS / "stock_level.avsc", "stock_level"))
_PROPOSALS: Final = SingleObject(load_schema(SCHEMAS / "order_proposal.avsc", "order_proposal"))


def forecast_of(value: bytes, partition: int, offset: int) -> Forecast:
    """A value of the forecasts' topic and where it lies. Raises `ForeignValueError`."""
    record = _FORECASTS.decode(value)
    return Forecast(
        sku_id=record["sku_id"],
        store_id=record["store_id"],
        as_of=record["as_of"],
        quantiles=three_quantiles(record["quantile_levels"], record["quantiles"]),
        fallback_reason=record["fallback_reason"],
        model=f"{record['model']} {record['model_version']}",
        partition=partition,
        offset=offset,
    )


def stock_of(value: bytes) -> Stock:
    """A value of the stock's topic. Raises `ForeignValueError`, also if its numbers or their sum aren't finite."""
    record = _STOCK.decode(value)
    stock = Stock(on_hand=record["on_hand"], on_order=record["on_order"])
    if not math.isfinite(stock.on_hand + stock.on_order):
        raise ForeignValueError(
            f"got on_hand {stock.on_hand:g} and on_order {stock.on_order:g}, expected finite numbers with a finite sum"
        )
    return stock


def stock_value(sku_id: str, store_id: str, stock: Stock, counted_at_ms: int) -> bytes:
    """What a shop's stock system would publish. counted_at_ms: milliseconds since 1970."""
    return _STOCK.encode({"sku_id": sku_id, "store_id": store_id, "counted_at": counted_at_ms, **asdict(stock)})


def proposal_of(value: bytes) -> Proposal:
    """A value of the proposals' topic. Raises `ForeignValueError`."""
    return Proposal(**_PROPOSALS.decode(value))


def proposal_value(proposal: Proposal) -> bytes:
    """A proposal as it is published."""
    return _PROPOSALS.encode(asdict(proposal))
