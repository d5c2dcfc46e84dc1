"""Steps without a broker: what a transaction carries, and which messages count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition

from demo import replenishment
from demo.order_desk import Forecast, Stock
from demo.order_policy import Policy
from demo.replenishment import Replenisher, Wiring
from demo.replenishment_wire import stock_value
from demo.table_reader import Tables

TODAY = 100
ENDS = {("sku-forecasts", 3): 20, ("sku-stock", 3): 7, ("order-proposals", 3): 2}
KEY = b"sku|store"


class FakeMessage:
    def __init__(self, topic: str, offset: int, value: bytes | None, *, partition: int = 3) -> None:
        self._content = topic, partition, offset, value

    def error(self) -> None:
        return None

    def key(self) -> bytes:
        return KEY

    def topic(self) -> str:
        return self._content[0]

    def partition(self) -> int:
        return self._content[1]

    def offset(self) -> int:
        return self._content[2]

    def value(self) -> bytes | None:
        return self._content[3]


class FakeConsumer:
    """Gives what is put into `due`. `generation` is what the group's metadata says at the moment."""

    def __init__(self, config: object) -> None:  # noqa: ARG002
        self.due: list[FakeMessage] = []
        self.generation = 1
        self.assigned: list[tuple[str, int, int]] = []
        self.on_assign: Callable[[Any, list[TopicPartition]], None] = lambda *_: None
        self.on_revoke: Callable[[Any, list[TopicPartition]], None] = lambda *_: None

    def subscribe(self, topics: object, *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:  # noqa: ARG002
        self.on_assign, self.on_revoke = on_assign, on_revoke

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = [(each.topic, each.partition, each.offset) for each in partitions]

    def unassign(self) -> None:
        self.assigned = []

    def consume(self, count: int, timeout_s: float) -> list[FakeMessage]:  # noqa: ARG002
        due, self.due = self.due, []
        return due

    def consumer_group_metadata(self) -> int:
        return self.generation

    def close(self) -> None:
        pass


class FakeProducer:
    """Keeps what was committed: keys, positions and the generation they were sent with."""

    def __init__(self, config: object) -> None:  # noqa: ARG002
        self.keys: list[bytes] = []
        self.positions: set[tuple[str, int, int]] = set()
        self.generation: int | None = None
        self.committed: list[tuple[list[bytes], set[tuple[str, int, int]], int | None]] = []

    def init_transactions(self, timeout_s: float) -> None:
        pass

    def begin_transaction(self) -> None:
        self.keys, self.positions, self.generation = [], set(), None

    def produce(self, topic: str, *, value: bytes | None, key: bytes, partition: int) -> None:  # noqa: ARG002
        self.keys.append(key)

    def send_offsets_to_transaction(self, positions: list[TopicPartition], group: int, timeout_s: float) -> None:  # noqa: ARG002
        if positions:  # librdkafka does nothing about an empty list, not even ask whether the group knows us
            self.positions |= {(each.topic, each.partition, each.offset) for each in positions}
            self.generation = group

    def commit_transaction(self, timeout_s: float) -> None:  # noqa: ARG002
        self.committed.append((self.keys, self.positions, self.generation))


class Bench:
    """A replenisher with partition 3 of both inputs, and one forecast and stock in its tables."""

    def __init__(self) -> None:
        self.today = TODAY
        self.replenisher = Replenisher(Wiring(bootstrap_servers="none"), Policy(), today=lambda: self.today)
        self.consumer: Any = vars(self.replenisher)["_consumer"]
        self.producer: Any = vars(self.replenisher)["_producer"]
        self.replenisher.__enter__()
        self.give(self.partitions())
        desk = self.replenisher._desks[3]
        desk.forecasts[KEY] = Forecast(
            sku_id="sku",
            store_id="store",
            as_of=TODAY,
            quantiles=np.array([[5.0] * 14, [10.0] * 14, [20.0] * 14], np.float32),
            fallback_reason=None,
            model="made 1",
            partition=3,
            offset=9,
        )
        desk.stock[KEY] = Stock(on_hand=4.0, on_order=0.0)

    def give(self, partitions: list[TopicPartition]) -> None:
        self.consumer.on_assign(self.consumer, partitions)

    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition("sku-forecasts", 3), TopicPartition("sku-stock", 3)]

    def stock(self, offset: int, on_hand: float) -> None:
        value = stock_value("sku", "store", Stock(on_hand=on_hand, on_order=0.0), 0)
        self.consumer.due.append(FakeMessage("sku-stock", offset, value))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(replenishment, "Consumer", FakeConsumer)
    monkeypatch.setattr(replenishment, "Producer", FakeProducer)
    monkeypatch.setattr(replenishment, "partition_count", lambda *_: 4)
    monkeypatch.setattr(replenishment, "read_tables", lambda *_, **__: Tables(messages=[], ends=ENDS))
    return Bench()


def test_proposals_of_a_step_without_messages_are_fenced_by_the_group(bench: Bench) -> None:
    assert bench.replenisher.step(0.0) == 1  # just restored
    assert bench.replenisher.step(0.0) == 0
    bench.stock(7, on_hand=5.0)
    assert bench.replenisher.step(0.0) == 1
    bench.today += 1
    assert bench.replenisher.step(0.0) == 1  # a new day
    restored, later = {("sku-forecasts", 3, 20), ("sku-stock", 3, 7)}, {("sku-forecasts", 3, 20), ("sku-stock", 3, 8)}
    assert bench.producer.committed == [([KEY], restored, 1), ([KEY], later, 1), ([KEY], later, 1)]


def test_the_generation_is_the_one_the_partitions_were_given_in(bench: Bench) -> None:
    bench.consumer.generation = -1  # put out of the group, and not told yet
    bench.replenisher.step(0.0)
    assert bench.producer.generation == 1


def test_a_message_that_changes_nothing_is_not_read_again(bench: Bench) -> None:
    bench.replenisher.step(0.0)
    bench.consumer.due.append(FakeMessage("sku-stock", 7, b"not a stock level"))
    assert bench.replenisher.step(0.0) == 0
    assert bench.producer.positions >= {("sku-stock", 3, 8)}


def test_messages_from_before_the_position_are_dropped(bench: Bench) -> None:
    bench.replenisher.step(0.0)
    bench.stock(6, on_hand=100.0)  # in the tables already, which may know a later one
    assert bench.replenisher.step(0.0) == 0
    assert len(bench.producer.committed) == 1


def test_messages_of_a_partition_that_was_taken_away_are_dropped(bench: Bench) -> None:
    bench.consumer.on_revoke(bench.consumer, bench.partitions())
    bench.stock(7, on_hand=5.0)
    assert bench.replenisher.step(0.0) == 0
    assert bench.producer.committed == []
