"""The demo's last evening: empty shelves, the forecasts on the topic, and the replenishment consumer proposing orders."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import KafkaException

from demo.backtest import CRITICAL_RATIO
from demo.events import Event
from demo.kafka import EmbeddedKafka
from demo.order_desk import Stock
from demo.order_policy import Policy
from demo.play import PlayError, Sender
from demo.replenishment import Replenisher, Wiring
from demo.replenishment_wire import stock_value
from demo.series import SeriesSet
from demo.table_reader import TableError

_TIMEOUT_S: Final = 30.0
_DAY_MS: Final = 86_400_000


def propose_orders(kafka: EmbeddedKafka, wiring: Wiring, series: SeriesSet, as_of: int, partitions: int) -> int:
    """Order for the day after `as_of`, as every shop is sold out in the evening: proposals published.

    Makes the topics of stock and proposals. Raises `PlayError` if the proposals don't come within 30 s.
    """
    for topic in (wiring.stock, wiring.proposals):
        kafka.create_topic(topic, partitions=partitions, config={"cleanup.policy": "compact"})
    sender = Sender(wiring.bootstrap_servers, wiring.stock)
    for sku_id, store_id in zip(series.sku_ids, series.store_ids, strict=True):
        value = stock_value(sku_id, store_id, Stock(on_hand=0.0, on_order=0.0), (as_of + 1) * _DAY_MS)
        sender.send(Event(key=f"{sku_id}|{store_id}".encode(), value=value))
    sender.flush()
    policy = Policy(perishable=True, critical_ratio=CRITICAL_RATIO)
    proposals, deadline_s = 0, time.monotonic() + _TIMEOUT_S
    try:
        with Replenisher(wiring, policy, today=lambda: as_of) as replenisher:
            while proposals < len(series) and time.monotonic() < deadline_s:
                proposals += replenisher.step(0.1)
    except (KafkaException, TableError) as error:
        raise PlayError(f"orders can't be proposed: {error}") from error
    if proposals != len(series):
        raise PlayError(
            f"{proposals} orders were proposed in {_TIMEOUT_S:g} s, expected one for each of {len(series)} series"
        )
    return proposals
