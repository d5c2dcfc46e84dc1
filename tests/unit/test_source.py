from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import TOPIC, FailedPlace, FakeConsumer, FakeMessage, failing, kafka_error
from worker.errors import AbortableError, DeliveryError, FatalDeliveryError, FencedError, UnreachableError
from worker.records import Records
from worker.source import SEEK_TIMEOUT_S, KafkaSource, Lag
from worker.source_errors import PERMANENT

Told = tuple[str, frozenset[int], frozenset[int]]


class Notes:
    """A listener that notes what it was told, and which partitions the source held at that moment."""

    def __init__(self) -> None:
        self.source: KafkaSource
        self.told: list[Told] = []
        self.then: dict[str, Callable[[], None]] = {}

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self._note("assigned", partitions)

    def on_revoked(self, partitions: frozenset[int]) -> None:
        self._note("revoked", partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        self._note("lost", partitions)

    def _note(self, kind: str, partitions: frozenset[int]) -> None:
        self.told.append((kind, partitions, self.source.assigned))
        self.then.get(kind, lambda: None)()


class Bench:
    """A subscribed source on a scripted consumer."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.consumer = FakeConsumer()
        self.notes = Notes()
        self.source = KafkaSource(self.consumer.as_consumer, TOPIC, clock=self.clock, wait=self.clock.advance)
        self.notes.source = self.source
        self.source.subscribe(self.notes)

    def poll(self, *events: FakeMessage | Callable[[], None]) -> Records:
        """Poll once; the consumer gathers messages and serves rebalances in the order given."""

        def consume() -> list[FakeMessage]:
            messages = []
            for event in events:
                if isinstance(event, FakeMessage):
                    messages.append(event)
                else:
                    event()
            return messages

        self.consumer.on("consume", consume)
        return self.source.poll(100, 0.1, eager=False)

    def assigned(self, *partitions: int) -> Bench:
        self.poll(lambda: self.consumer.assign(*partitions))
        return self


def places(records: Records) -> list[tuple[int, int]]:
    return list(zip(records.partitions.tolist(), records.offsets.tolist(), strict=True))


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- polling ----------------------------------------------------------------------------------------------------------


def test_subscribes_to_its_topic_and_ties_transactions_to_the_group(bench: Bench) -> None:
    assert bench.consumer.topics == [TOPIC]
    assert bench.source.group_metadata() == "metadata"


def test_records_are_columns_in_the_order_of_arrival(bench: Bench) -> None:
    bench.assigned(0, 1)
    records = bench.poll(FakeMessage(1, 7, timestamp_ms=70), FakeMessage(0, 3, value=None), FakeMessage(1, 9))
    assert records.topic == TOPIC
    assert places(records) == [(1, 7), (0, 3), (1, 9)]
    assert records.keys == [b"key 7", b"key 3", b"key 9"]
    assert records.values == [b"value", None, b"value"]
    assert records.timestamps_ms.tolist() == [70, 1000, 1000]
    assert records[0].headers == ()


@pytest.mark.parametrize(
    ("headers", "kept"), [([("a", b"1")], [("a", b"1")]), ({"a": b"1"}, [("a", b"1")]), (None, []), ([], [])]
)
def test_headers_are_made_for_those_who_ask(headers: object, kept: list[tuple[str, bytes]]) -> None:
    bench = Bench().assigned(0)
    records = bench.poll(FakeMessage(0, 1, headers=headers))
    assert list(records.headers or ()) == [kept]
    assert records[0].headers == tuple(kept)


def test_an_eager_poll_takes_what_is_there_or_waits_for_one(bench: Bench) -> None:
    bench.assigned(0)
    bench.consumer.asked.clear()
    bench.consumer.on("consume", lambda: [FakeMessage(0, 1)])
    assert len(bench.source.poll(50, 0.1)) == 1
    assert bench.consumer.asked == [(50, 0.0)]
    bench.consumer.on("consume", None, lambda: [FakeMessage(0, 2)])
    assert places(bench.source.poll(50, 0.1)) == [(0, 2)]
    assert bench.consumer.asked == [(50, 0.0), (50, 0.0), (1, 0.1)]


def test_a_patient_poll_waits_for_all(bench: Bench) -> None:
    bench.consumer.asked.clear()
    assert len(bench.source.poll(50, 0.1, eager=False)) == 0
    assert bench.consumer.asked == [(50, 0.1)]


def test_records_of_partitions_that_are_not_assigned_now_are_left_out(bench: Bench) -> None:
    bench.assigned(0, 1)
    gathered = [FakeMessage(0, 5), FakeMessage(1, 6), FakeMessage(7, 8)]
    records = bench.poll(*gathered, lambda: bench.consumer.revoke(1), FakeMessage(0, 6))
    assert places(records) == [(0, 5), (0, 6)]


def test_with_room_for_none_it_only_serves_rebalances(bench: Bench) -> None:
    bench.consumer.on("poll", lambda: bench.consumer.assign(3))
    assert len(bench.source.poll(0, 0.2)) == 0
    assert bench.consumer.asked == [(1, 0.2)]
    assert bench.source.assigned == {3}


def test_a_message_that_slips_through_such_a_poll_is_read_again(bench: Bench) -> None:
    bench.assigned(2)
    bench.consumer.on("poll", lambda: FakeMessage(2, 40))
    assert len(bench.source.poll(0, 0.2)) == 0
    assert bench.consumer.seeks == [(2, 40)]


def test_an_error_that_comes_with_such_a_poll_is_heard(bench: Bench) -> None:
    bench.consumer.on("poll", lambda: FakeMessage(error=kafka_error(KafkaError._FATAL, fatal=True)))
    with pytest.raises(FatalDeliveryError, match="consuming: reason"):
        bench.source.poll(0, 0.2)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(PERMANENT))
@pytest.mark.parametrize("stale", [False, True])
def test_what_cannot_heal_ends_the_poll_with_a_remedy(bench: Bench, code: int, *, stale: bool) -> None:
    events: list[Any] = [bench.source.rewind] if stale else []
    with pytest.raises(UnreachableError) as caught:
        bench.poll(*events, FakeMessage(error=kafka_error(code)))
    assert str(caught.value) == f"consuming: reason {code}: {PERMANENT[code]}"


def test_a_fatal_error_as_librdkafka_hands_it_over_has_the_code_but_not_the_flag(bench: Bench) -> None:
    bench.consumer.on("consume", lambda: [FakeMessage(error=kafka_error(KafkaError._FATAL))])
    with pytest.raises(FatalDeliveryError, match="consuming: reason"):
        bench.source.poll(10, 0.1)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(KafkaError._FATAL, FatalDeliveryError), (KafkaError.FENCED_INSTANCE_ID, FencedError)],
)
@pytest.mark.parametrize("raised", [False, True])
def test_fatal_errors_come_as_messages_or_as_exceptions(
    bench: Bench, code: int, expected: type[DeliveryError], *, raised: bool
) -> None:
    error = kafka_error(code, fatal=True)

    def step() -> list[FakeMessage]:
        if raised:
            raise failing(error)
        return [FakeMessage(error=error)]

    bench.consumer.on("consume", step)
    with pytest.raises(DeliveryError, match=f"consuming: reason {code}") as caught:
        bench.source.poll(10, 0.1)
    assert type(caught.value) is expected


def test_what_heals_is_only_logged_and_the_end_of_a_partition_not_even_that(bench: Bench) -> None:
    bench.assigned(0)
    with capture_logs() as logs:
        passing = [FakeMessage(error=kafka_error(KafkaError._TRANSPORT)), FakeMessage(0, 4)]
        assert places(bench.poll(*passing)) == [(0, 4)]
        assert places(bench.poll(FakeMessage(error=kafka_error(KafkaError._PARTITION_EOF)))) == []
    assert [entry["event"] for entry in logs] == ["consumer reports"]


# -- rebalances -------------------------------------------------------------------------------------------------------


def test_assigned_before_told_revoked_after_told_lost_before_told(bench: Bench) -> None:
    bench.assigned(0, 1, 2)
    bench.poll(lambda: bench.consumer.revoke(1), lambda: bench.consumer.lose(2))
    assert bench.notes.told == [
        ("assigned", frozenset({0, 1, 2}), frozenset({0, 1, 2})),
        ("revoked", frozenset({1}), frozenset({0, 1, 2})),
        ("lost", frozenset({2}), frozenset({0})),
    ]
    assert bench.source.assigned == {0}


@pytest.mark.parametrize("kind", ["assigned", "revoked", "lost"])
def test_what_the_listener_raises_leaves_the_poll_when_librdkafka_is_done(bench: Bench, kind: str) -> None:
    bench.assigned(0)
    served: list[str] = []

    def fail() -> None:
        raise AbortableError(kind)

    bench.notes.then[kind] = fail
    rebalance = {"assigned": bench.consumer.assign, "revoked": bench.consumer.revoke, "lost": bench.consumer.lose}[kind]
    with pytest.raises(AbortableError, match=kind):
        bench.poll(lambda: rebalance(0), lambda: served.append("on"))
    assert served == ["on"]
    bench.notes.then.clear()
    bench.poll()  # it is raised once


def test_the_first_failure_is_the_one_that_is_raised(bench: Bench) -> None:
    failures = iter([AbortableError("first"), AbortableError("second")])

    def fail() -> None:
        raise next(failures)

    bench.notes.then["assigned"] = fail
    with pytest.raises(AbortableError, match="first"):
        bench.poll(lambda: bench.consumer.assign(0), lambda: bench.consumer.assign(1))


# -- rewinding --------------------------------------------------------------------------------------------------------


def test_rewind_goes_to_the_committed_offset_or_to_where_reading_began(bench: Bench) -> None:
    bench.assigned(0, 1, 2)
    bench.poll(FakeMessage(0, 5), FakeMessage(1, 50))
    bench.poll(FakeMessage(0, 6), FakeMessage(1, 51))
    bench.consumer.committed_offsets = {1: 51}
    bench.source.rewind()
    assert bench.consumer.seeks == [(0, 5), (1, 51)]  # nothing was polled of 2


def test_rewind_with_nothing_polled_asks_nobody(bench: Bench) -> None:
    bench.assigned(0)
    bench.source.rewind()
    assert "committed" not in bench.consumer.calls


def test_rewind_within_a_poll_discards_all_of_it_even_what_was_polled_for_the_first_time(bench: Bench) -> None:
    bench.assigned(0, 1, 2)
    bench.poll(FakeMessage(0, 5))
    bench.consumer.committed_offsets = {2: 20}
    first = [FakeMessage(0, 6), FakeMessage(1, 30), FakeMessage(2, 21)]
    assert len(bench.poll(*first, bench.source.rewind, FakeMessage(1, 31))) == 0
    assert bench.consumer.seeks == [(0, 5), (1, 30), (2, 20)]
    assert places(bench.poll(FakeMessage(0, 5), FakeMessage(1, 30))) == [(0, 5), (1, 30)]


def test_a_lost_partition_is_not_sought(bench: Bench) -> None:
    bench.assigned(0, 1)
    bench.poll(FakeMessage(0, 5), FakeMessage(1, 6))
    bench.notes.then["lost"] = bench.source.rewind
    assert len(bench.poll(FakeMessage(0, 6), FakeMessage(1, 7), lambda: bench.consumer.lose(1))) == 0
    assert bench.consumer.seeks == [(0, 5)]


def test_a_partition_that_went_and_came_back_within_a_poll_is_read_again_and_only_it(bench: Bench) -> None:
    bench.assigned(0, 1)
    bench.poll(FakeMessage(0, 5), FakeMessage(1, 6))
    bench.consumer.committed_offsets = {1: 7}
    records = bench.poll(
        FakeMessage(1, 8),
        FakeMessage(0, 6),
        lambda: bench.consumer.revoke(1),
        lambda: bench.consumer.assign(1),
        FakeMessage(1, 7),
    )
    assert places(records) == [(0, 6)]
    assert bench.consumer.seeks == [(1, 7)]


def test_what_came_back_without_a_commit_is_read_from_where_reading_began(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.notes.then["revoked"] = bench.source.rewind
    back = (lambda: bench.consumer.revoke(0), lambda: bench.consumer.assign(0))
    assert len(bench.poll(FakeMessage(0, 6), *back)) == 0
    assert bench.consumer.seeks == [(0, 5)]


def test_what_came_back_and_brought_nothing_yet_starts_by_itself(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.poll(lambda: bench.consumer.lose(0), lambda: bench.consumer.assign(0))
    assert bench.consumer.seeks == []


def test_a_partition_that_went_is_forgotten(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.poll(lambda: bench.consumer.revoke(0))
    bench.assigned(0)
    bench.poll(FakeMessage(0, 9))
    bench.source.rewind()
    assert bench.consumer.seeks == [(0, 9)]


def test_a_committed_offset_that_cannot_be_learned_is_fatal(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    refused = kafka_error(KafkaError.GROUP_AUTHORIZATION_FAILED)
    bench.consumer.on("committed", lambda: [FailedPlace(0, refused)], failing(refused))
    for _ in range(2):
        with pytest.raises(FatalDeliveryError, match=r"asking for committed offsets of in\[0\]: reason 30"):
            bench.source.rewind()
    assert bench.clock() == 1000


def test_a_coordinator_that_moves_is_asked_again(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.consumer.committed_offsets = {0: 4}
    moving = kafka_error(KafkaError.NOT_COORDINATOR)
    bench.consumer.on("committed", failing(moving), lambda: [FailedPlace(0, moving)])
    bench.source.rewind()
    assert bench.consumer.seeks == [(0, 4)]
    assert 1000 < bench.clock() < 1000 + SEEK_TIMEOUT_S


def test_a_coordinator_that_never_settles_is_fatal_in_the_end(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.consumer.on("committed", *[failing(kafka_error(KafkaError.COORDINATOR_NOT_AVAILABLE))] * 1000)
    with pytest.raises(FatalDeliveryError, match=r"asking for committed offsets of in\[0\]: reason 15"):
        bench.source.rewind()
    assert bench.clock() == pytest.approx(1000 + SEEK_TIMEOUT_S)


def test_a_seek_that_fails_is_fatal_unless_the_partition_went(bench: Bench) -> None:
    bench.assigned(0)
    bench.consumer.on("seek", failing(kafka_error()), failing(kafka_error()))
    with pytest.raises(FatalDeliveryError, match=r"can't rewind in\[0\]"):
        bench.source.hold(0, 3, 0.0)
    bench.source.hold(1, 3, 0.0)


# -- holding and pausing ----------------------------------------------------------------------------------------------


def test_a_held_partition_waits_until_its_time_and_reads_the_record_again(bench: Bench) -> None:
    bench.assigned(0, 1)
    bench.source.hold(1, 17, bench.clock() + 5.0)
    assert bench.consumer.seeks == [(1, 17)]
    assert (set(bench.source.held), bench.consumer.paused) == ({1}, {1})
    bench.clock.advance(4.5)
    bench.poll()
    assert bench.source.held == {1}
    bench.clock.advance(0.5)
    bench.poll()
    assert (set(bench.source.held), bench.consumer.paused) == (set(), set())


def test_a_pause_outlives_a_hold_and_a_hold_a_pause(bench: Bench) -> None:
    bench.assigned(0, 1)
    bench.source.hold(0, 3, bench.clock() + 5.0)
    bench.source.pause()
    bench.source.hold(1, 4, bench.clock() + 9.0)
    bench.clock.advance(5.0)
    bench.poll()
    assert bench.consumer.paused == {0, 1}
    bench.source.resume()
    assert bench.consumer.paused == {1}
    bench.clock.advance(4.0)
    bench.poll()
    assert bench.consumer.paused == set()


def test_what_is_assigned_while_paused_is_paused_when_the_poll_ends(bench: Bench) -> None:
    bench.assigned(0)
    bench.source.pause()
    seen: list[set[int]] = []
    bench.poll(lambda: bench.consumer.assign(1), lambda: seen.append(set(bench.consumer.paused)))
    assert seen == [{0}]
    assert bench.consumer.paused == {0, 1}
    bench.source.resume()
    assert bench.consumer.paused == set()
    bench.poll(lambda: bench.consumer.assign(2))
    assert bench.consumer.paused == set()


def test_what_is_assigned_and_gone_again_while_paused_is_left_alone(bench: Bench) -> None:
    bench.source.pause()
    bench.poll(lambda: bench.consumer.assign(1, 2), lambda: bench.consumer.revoke(1))
    assert bench.consumer.paused == {2}


def test_a_held_partition_that_goes_is_held_no_more(bench: Bench) -> None:
    bench.assigned(0)
    bench.source.hold(0, 3, bench.clock() + 5.0)
    bench.poll(lambda: bench.consumer.revoke(0))
    assert bench.source.held == frozenset()


# -- lag and leaving --------------------------------------------------------------------------------------------------


def test_lag_is_what_was_not_polled_and_the_age_of_what_was(bench: Bench) -> None:
    bench.assigned(0, 1, 2)
    bench.poll(FakeMessage(0, 5, timestamp_ms=4000), FakeMessage(1, 6, timestamp_ms=-1))
    bench.consumer.high = 9
    assert bench.source.lags(10_000) == [
        Lag(partition=0, records=3, seconds=6.0),
        Lag(partition=1, records=2, seconds=0.0),
    ]
    bench.consumer.high = 6
    assert bench.source.lags(10_000)[0] == Lag(partition=0, records=0, seconds=0.0)


def test_lag_never_is_negative(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5, timestamp_ms=4000))
    assert bench.source.lags(10_000) == [Lag(partition=0, records=0, seconds=0.0)]  # the end isn't known yet
    bench.consumer.high = 9
    assert bench.source.lags(1000) == [Lag(partition=0, records=3, seconds=0.0)]  # clocks disagree


def test_lag_is_only_of_partitions_held_now(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.poll(lambda: bench.consumer.lose(0))
    assert bench.source.lags(0) == []


def test_close_leaves_the_group(bench: Bench) -> None:
    bench.source.close()
    assert bench.consumer.calls == ["close"]


def test_a_rewind_while_leaving_asks_nobody(bench: Bench) -> None:
    bench.assigned(0)
    bench.poll(FakeMessage(0, 5))
    bench.notes.then["revoked"] = bench.source.rewind
    bench.consumer.on("close", lambda: bench.consumer.revoke(0))
    bench.source.close()
    assert bench.source.assigned == frozenset()
    assert "committed" not in bench.consumer.calls


@pytest.mark.parametrize("kind", ["paused", "held"])
def test_what_went_while_it_was_quiet_is_resumed_when_it_comes_back(bench: Bench, kind: str) -> None:
    bench.assigned(0, 1)
    bench.source.pause() if kind == "paused" else bench.source.hold(1, 5, bench.clock() + 5.0)
    bench.poll(lambda: bench.consumer.revoke(1))
    bench.source.resume()
    bench.consumer.paused = {1}  # librdkafka keeps it over a reassignment
    bench.poll(lambda: bench.consumer._rebalance("assign", [1]))
    assert bench.consumer.paused == set()
