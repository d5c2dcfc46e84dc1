"""What keeps going wrong: a worker says so, or leaves, instead of looking busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import FakeProducer, failing, kafka_error
from tests.helpers.engines import FakeEngine
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import Rig, event, key
from worker.deadline import Deadline
from worker.engine import Forecasts, Ticket
from worker.errors import AbortableError, FatalDeliveryError, FencedError, UnreachableError
from worker.loop import FAILURES_IN_A_ROW
from worker.publish import Routing
from worker.transaction import Outgoing, Transaction


@pytest.fixture
def rig() -> Rig:
    broker = MemoryBroker(2)
    made = Rig(broker, rejected_share=0.5, window_records=10)
    made.source.assign(0, 1)
    return made


def send(rig: Rig, count: int) -> None:
    for number in range(count):
        rig.broker.append(number % 2, key(f"sku{number}"), event(f"sku{number}"))


def run(rig: Rig, steps: int) -> None:
    for _ in range(steps):
        rig.clock.advance(0.3)
        rig.worker.step()


def test_a_model_that_gives_nonsense_trips_the_breaker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(engine: FakeEngine, ticket: Ticket) -> Forecasts:
        good = collect(engine, ticket)
        return Forecasts(np.full_like(good.values, np.nan), good.spec)

    collect: Callable[[FakeEngine, Ticket], Forecasts] = FakeEngine.collect
    monkeypatch.setattr(FakeEngine, "collect", nonsense)
    send(rig, 500)
    run(rig, 300)
    (reason,) = rig.worker.statistics.not_ready
    assert "bad_forecast" in reason
    assert "the model" in reason
    assert sum(rig.outcomes().values()) < 20
    assert rig.source.paused
    assert sum(rig.broker.committed.values()) == sum(rig.outcomes().values())


def test_a_tripped_breaker_commits_nothing_more_whatever_the_group_does(rig: Rig) -> None:
    for number in range(100):
        rig.broker.append(number % 2, b"k", b"garbage")
    run(rig, 30)
    committed = dict(rig.broker.committed)
    assert sum(committed.values()) < 20
    rig.source.revoke(0)
    run(rig, 2)
    rig.source.assign(0)
    rig.source.lose(1)
    run(rig, 2)
    rig.source.assign(1)
    run(rig, 10)
    rig.worker.drain(Deadline.after(1.0, rig.clock))
    assert rig.broker.committed == committed
    assert "breaker.rejected_share" in rig.worker.statistics.not_ready[0]


def test_records_read_again_dont_count_twice_for_the_breaker(rig: Rig) -> None:
    rig.broker.append(0, b"k", b"garbage")
    for _ in range(50):
        rig.delivery.fail_next["commit"] = AbortableError("brokers are away")
        run(rig, 3)
    rig.delivery.fail_next.clear()
    rig.settle()
    assert rig.outcomes() == {(0, 0): 1}


def test_aborting_again_and_again_isnt_ready_until_a_commit_succeeds(rig: Rig) -> None:
    send(rig, 3)
    for attempt in range(1, FAILURES_IN_A_ROW + 2):
        rig.delivery.fail_next["commit"] = AbortableError("invalid timestamp")
        while rig.delivery.fail_next:
            run(rig, 1)
        rig.clock.advance(1.0)
        reasons = rig.worker.statistics.not_ready
        assert bool(reasons) == (attempt >= FAILURES_IN_A_ROW), f"after {attempt}"
    assert "invalid timestamp" in rig.worker.statistics.not_ready[0]
    rig.settle()
    run(rig, 1)
    assert rig.worker.statistics.ready
    rig.delivery.fail_next["commit"] = AbortableError("once more")
    send(rig, 1)
    run(rig, 3)
    assert rig.worker.statistics.ready


def test_topics_that_cant_be_asked_for_in_mid_work_are_no_configuration_error(rig: Rig) -> None:
    def away() -> Routing:
        raise UnreachableError("no broker answers")

    rig.worker._pipeline._find_routing = away
    send(rig, 1)
    with pytest.raises(FatalDeliveryError, match="asking where outputs go: no broker answers"):
        run(rig, 5)


@pytest.mark.parametrize("hidden", [KafkaError._STATE, KafkaError._FATAL])
@pytest.mark.parametrize(
    ("abort", "wanted"),
    [
        (None, None),
        (kafka_error(fatal=True), FatalDeliveryError),
        (kafka_error(KafkaError._FENCED, fatal=True), FencedError),
    ],
)
def test_a_message_that_failed_in_the_background_aborts_unless_aborting_fails(
    abort: Any, wanted: type[Exception] | None, hidden: int
) -> None:
    clock = ManualClock()
    producer = FakeProducer(clock)
    deadline = Deadline.after(10.0, clock)
    transaction = Transaction(producer.as_producer, lambda: "metadata", deadline=deadline)
    producer.on("produce", None, failing(kafka_error(hidden)))
    outgoing = Outgoing(topic="out", keys=[b"a", b"b"], values=[b"", b""], partitions=None, timestamps_ms=[0, 0])
    with pytest.raises(AbortableError, match="producing to out"):
        transaction.produce(outgoing, deadline)
    if abort is not None:
        producer.on("abort_transaction", failing(abort))
        assert wanted is not None
        with pytest.raises(wanted):
            transaction.abort(deadline)
    else:
        transaction.abort(deadline)
        transaction.produce(outgoing, deadline)
