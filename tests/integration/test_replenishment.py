"""Replenishment on a real broker: each proposal once, whatever ends the process, and nothing from forecasts that don't count."""

from __future__ import annotations

import itertools
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from demo.order_desk import Proposal, Stock
from demo.order_policy import Policy
from demo.replenishment import Replenisher, Wiring
from demo.replenishment_wire import proposal_of, stock_value
from demo.single_object import SingleObject
from demo.table_reader import TableError, read_tables
from schemas.load import load_schema
from tests.conftest import TopicFactory
from tests.helpers.child import Child
from tests.helpers.topics import Stored, produce, read_all
from tests.helpers.waiting import wait_until

TODAY = 18_000
PARTITIONS = 2
FORECASTS = SingleObject(load_schema(None, "sku_forecast"))
COMPACT = {"cleanup.policy": "compact"}
POLICY = Policy(critical_ratio=0.9)

pytestmark = pytest.mark.kafka


def key(number: int) -> bytes:
    return f"sku-{number}|store".encode()


@dataclass
class Shop:
    """The three topics, and who writes the two that are read."""

    wiring: Wiring

    def forecast(self, number: int, level: float, *, as_of: int = TODAY, flag: str | None = None) -> None:
        """P10, P50, P90 of all 14 days: half of the level, the level, twice the level."""
        record = {"sku_id": f"sku-{number}", "store_id": "store", "as_of": as_of, "fallback_reason": flag}
        record |= {"quantile_levels": [0.1, 0.5, 0.9], "quantiles": [[level * f] * 14 for f in (0.5, 1.0, 2.0)]}
        record |= {"source_partition": 0, "source_offset": 0, "generated_at": 0}
        record |= {"model": "made", "model_version": "1", "engine_digest": "0" * 64, "precision": "fp32"}
        self.send(self.wiring.forecasts, number, FORECASTS.encode(record))

    def stock(self, number: int, on_hand: float) -> None:
        value = stock_value(f"sku-{number}", "store", Stock(on_hand=on_hand, on_order=0.0), 0)
        self.send(self.wiring.stock, number, value)

    def send(self, topic: str, number: int, value: bytes | None) -> None:
        produce(self.wiring.bootstrap_servers, topic, [(key(number), value, 1, number % PARTITIONS)])

    def stored(self) -> list[Stored]:
        return read_all(self.wiring.bootstrap_servers, self.wiring.proposals)

    def proposals(self, number: int) -> list[Proposal | None]:
        """All that were committed for a key, in their order."""
        return [(m.value and proposal_of(m.value)) or None for m in self.stored() if m.key == key(number)]

    def quantities(self, number: int) -> list[float | None]:
        return [None if each is None else each.quantity for each in self.proposals(number)]

    def consumer(self, policy: Policy = POLICY, today: Callable[[], int] = lambda: TODAY) -> Replenisher:
        return Replenisher(self.wiring, policy, today=today)


@pytest.fixture
def shop(kafka: Any, topics: TopicFactory) -> Shop:
    forecasts, stock, proposals = (topics(stem, PARTITIONS, COMPACT) for stem in ("forecasts", "stock", "proposals"))
    return Shop(
        Wiring(
            bootstrap_servers=kafka.bootstrap_servers,
            forecasts=forecasts,
            stock=stock,
            proposals=proposals,
            group_id=f"group-{forecasts}",
            transactional_id=f"id-{forecasts}",
        )
    )


def run(replenisher: Replenisher, proposals: int) -> None:
    """Let it work until it has published so many, and see that no more come."""
    found = 0

    def published() -> bool:
        nonlocal found
        found += replenisher.step(0.1)
        return found >= proposals and set(replenisher._desks) == set(range(PARTITIONS))

    wait_until(published, f"{proposals} proposals")
    found += sum(replenisher.step(0.1) for _ in range(5))
    assert found == proposals


def test_each_change_is_proposed_once_and_a_restart_changes_nothing(shop: Shop) -> None:
    for number in range(3):
        shop.stock(number, 4.0)
        shop.forecast(number, 10.0)
    with shop.consumer() as replenisher:
        run(replenisher, 3)  # P90 of one day is 20, 4 are there
        shop.forecast(0, 10.0)  # the same again
        shop.forecast(1, 20.0)
        shop.stock(2, 50.0)  # enough is there
        run(replenisher, 2)
    with shop.consumer() as replenisher:
        run(replenisher, 0)
    assert [shop.quantities(number) for number in range(3)] == [[16.0], [16.0, 36.0], [16.0, 0.0]]
    assert {m.partition for m in shop.stored() if m.key == key(1)} == {1}


def test_without_forecast_or_stock_there_is_no_proposal_and_a_withdrawn_one_goes_once(shop: Shop) -> None:
    shop.forecast(0, 10.0)
    shop.stock(1, 1.0)
    for number in (2, 3):
        shop.stock(number, 4.0)
        shop.forecast(number, 10.0)
    with shop.consumer() as replenisher:
        run(replenisher, 2)
        shop.send(shop.wiring.forecasts, 2, None)
        shop.send(shop.wiring.stock, 3, None)
        run(replenisher, 2)
        shop.send(shop.wiring.forecasts, 2, None)
        run(replenisher, 0)
    with shop.consumer() as replenisher:
        run(replenisher, 0)
    assert [shop.quantities(number) for number in range(4)] == [[], [], [16.0, None], [16.0, None]]


def test_forecasts_that_are_old_or_flagged_are_refused_with_their_reason_or_widened(shop: Shop) -> None:
    for number in range(3):
        shop.stock(number, 4.0)
    shop.forecast(0, 10.0, as_of=TODAY - 3)
    shop.forecast(1, 10.0, flag="guard:explosion")
    shop.forecast(2, 10.0, as_of=TODAY - 2)
    with shop.consumer() as replenisher:
        run(replenisher, 3)
        shop.forecast(0, 10.0)
        run(replenisher, 1)
    with shop.consumer(Policy(critical_ratio=0.9, flagged="widen", widening=2.0)) as replenisher:
        run(replenisher, 1)
    refusals = [[None if each is None else each.refusal for each in shop.proposals(number)] for number in range(3)]
    assert refusals == [
        ["too_old: made 3 days before, allowed are 2", None],
        ["flagged: guard:explosion", None],
        [None],
    ]
    assert shop.quantities(1) == [0.0, 26.0]  # 10 + 2 x (20 - 10), less 4


def test_a_new_day_is_decided_anew_without_a_message(shop: Shop) -> None:
    shop.stock(0, 4.0)
    shop.forecast(0, 10.0)
    day = TODAY
    with shop.consumer(today=lambda: day) as replenisher:
        run(replenisher, 1)
        day += 1
        run(replenisher, 1)
        day += 2
        run(replenisher, 1)
    found = [(each.day, each.quantity, each.refusal is None) for each in shop.proposals(0) if each]
    assert found == [(TODAY, 16.0, True), (TODAY + 1, 16.0, True), (TODAY + 3, 0.0, False)]


def test_what_cannot_be_read_leaves_the_key_as_it_was(shop: Shop) -> None:
    shop.stock(0, 4.0)
    shop.forecast(0, 10.0)
    with shop.consumer() as replenisher:
        run(replenisher, 1)
        shop.send(shop.wiring.forecasts, 0, b"\x00no forecast")
        run(replenisher, 0)
        shop.stock(0, 5.0)
        run(replenisher, 1)
    assert shop.quantities(0) == [16.0, 15.0]


class Failing:
    """The producer, until a commit: then the process is as good as dead, before the commit or after it."""

    def __init__(self, producer: Producer, *, commits: bool) -> None:
        self._producer, self._commits = producer, commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout_s: float) -> None:
        if self._commits:
            self._producer.commit_transaction(timeout_s)
        else:
            self._producer.flush(timeout_s)  # the proposals lie on the topic, in an open transaction
        raise KafkaException(KafkaError(KafkaError._FAIL, "made to fail"))


@pytest.mark.parametrize("commits", [False, True])
def test_a_failure_around_the_commit_is_settled_by_the_next_start(shop: Shop, commits: bool) -> None:  # noqa: FBT001 - a parameter
    shop.stock(0, 4.0)
    shop.forecast(0, 10.0)
    with shop.consumer() as first:
        first._producer = Failing(first._producer, commits=commits)  # type: ignore[assignment]
        with pytest.raises(KafkaException, match="made to fail"):
            run(first, 1)
    with shop.consumer() as second:
        run(second, 0 if commits else 1)
    assert shop.quantities(0) == [16.0]


def test_who_is_killed_again_and_again_proposes_each_change_once(shop: Shop) -> None:
    keys, moments = range(20), random.Random(7)
    command = [sys.executable, "-m", "demo.replenishment", "--bootstrap", shop.wiring.bootstrap_servers]
    for name in ("forecasts", "stock", "proposals", "group_id", "transactional_id"):
        command += [f"--{name.replace('_', '-')}", getattr(shop.wiring, name)]
    command += ["--critical-ratio", "0.9", "--today", str(TODAY)]
    for number in keys:
        shop.stock(number, 4.0)
    for turn in range(5):
        with Child(command) as process:
            for number in moments.sample(keys, len(keys)):
                shop.forecast(number, 10.0 * (turn + 1))
            if turn == 1:  # one of them gets to work for sure
                process.wait_until(lambda: len(shop.stored()) > 0, "a first proposal")
    with Child(command) as process:
        process.wait_until(lambda: all(shop.quantities(number)[-1:] == [96.0] for number in keys), "the last proposals")
        process.send(signal.SIGTERM)
        assert process.wait() == 0, process
    for number in keys:
        quantities = shop.quantities(number)
        assert all(a != b for a, b in itertools.pairwise(quantities)), quantities


def test_an_open_transaction_on_its_own_topic_is_waited_for(shop: Shop) -> None:
    """Another instance's proposal that is being committed while the partition changes hands must not be proposed again."""
    servers, wiring = shop.wiring.bootstrap_servers, shop.wiring
    other = Producer({"bootstrap.servers": servers, "transactional.id": f"other-{wiring.proposals}"})
    other.init_transactions(30.0)
    other.begin_transaction()
    other.produce(wiring.proposals, key=b"k", value=b"v", partition=0)
    other.flush(30.0)
    committed_s: list[float] = []

    def commit() -> None:
        time.sleep(1.0)
        other.commit_transaction(30.0)
        committed_s.append(time.monotonic())

    thread = threading.Thread(target=commit)
    thread.start()
    tables = read_tables(servers, wiring.tables, [0, 1], own=wiring.proposals)
    thread.join()
    assert committed_s
    assert [message.value() for message in tables.messages] == [b"v"]


def test_topics_that_do_not_fit_are_refused(shop: Shop, topics: TopicFactory) -> None:
    wider = topics("wider", PARTITIONS + 1, COMPACT)
    wiring = shop.wiring
    for wrong, words in ((wider, "expected the same number"), ("nowhere", "topics that don't exist: nowhere")):
        changed = Wiring(bootstrap_servers=wiring.bootstrap_servers, forecasts=wiring.forecasts, stock=wrong)
        changed = Wiring(
            **{**{name: getattr(changed, name) for name in Wiring.__slots__}, "proposals": wiring.proposals}
        )
        with pytest.raises(TableError, match=words), Replenisher(changed, POLICY):
            pass
