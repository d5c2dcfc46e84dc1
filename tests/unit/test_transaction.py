from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import TOPIC, FailedPlace, FakeConsumer, FakeProducer, failing, kafka_error
from worker.deadline import Deadline
from worker.delivery_errors import PASSING, REGROUPED
from worker.errors import AbortableError, DeliveryError, FatalDeliveryError, FencedError
from worker.records import Positions, Span
from worker.transaction import LEGAL, Flushed, Outgoing, State, Transaction

BUDGET_S = 10.0
POSITIONS = Positions(TOPIC, {0: Span(3, 9), 2: Span(0, 5)}, 11)
OFFSETS = [(0, 9), (2, 5)]
RETRIABLE = kafka_error(retriable=True)
ABORTABLE = kafka_error(KafkaError.TRANSACTION_ABORTABLE, abortable=True)
FATAL = kafka_error(KafkaError._FATAL, fatal=True)
FENCING = kafka_error(KafkaError._FENCED, fatal=True)


def outgoing(count: int = 2, *, headers: bool = False) -> Outgoing:
    return Outgoing(
        topic="out",
        keys=[f"k{i}".encode() for i in range(count)],
        values=[f"v{i}".encode() for i in range(count - 1)] + [None],
        partitions=list(range(count)),
        timestamps_ms=[100 + i for i in range(count - 1)] + [-1],
        headers=[[("row", str(i).encode())] for i in range(count)] if headers else None,
    )


class Bench:
    """A delivery between two scripts."""

    def __init__(self, *, transactional: bool) -> None:
        self.clock = ManualClock()
        self.producer = FakeProducer(self.clock)
        self.consumer = FakeConsumer()
        self.failures: list[KafkaError] = []
        self.delivery: Transaction | Flushed = (
            Transaction(self.producer.as_producer, lambda: "metadata", deadline=self.deadline())
            if transactional
            else Flushed(self.producer.as_producer, self.consumer.as_consumer, self.failures)
        )
        self.producer.calls.clear()

    def deadline(self, seconds: float = BUDGET_S) -> Deadline:
        return Deadline.after(seconds, self.clock)

    def produce(self, messages: Outgoing | None = None) -> None:
        self.delivery.produce(messages or outgoing(), self.deadline())

    def commit(self) -> None:
        self.delivery.commit(POSITIONS, self.deadline())

    def abort(self) -> None:
        self.delivery.abort(self.deadline())

    def call(self, name: str) -> None:
        calls: dict[str, Callable[[], None]] = {"produce": self.produce, "commit": self.commit, "abort": self.abort}
        calls[name]()

    def bring_to(self, state: State) -> None:
        """By the calls and errors that lead there."""
        if state is not State.READY:
            self.produce()
        if state in {State.BROKEN, State.FATAL}:
            self.producer.on("produce", failing(ABORTABLE if state is State.BROKEN else FATAL))
            with pytest.raises(DeliveryError):
                self.produce()
        assert self.delivery.state is state


@pytest.fixture
def bench() -> Bench:
    return Bench(transactional=True)


@pytest.fixture
def plain() -> Bench:
    return Bench(transactional=False)


@pytest.fixture(params=[True, False], ids=["transaction", "flushed"])
def either(request: pytest.FixtureRequest) -> Bench:
    return Bench(transactional=request.param)


# -- the state table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("call", sorted(LEGAL))
def test_every_call_in_every_state(either: Bench, state: State, call: str) -> None:
    either.bring_to(state)
    either.producer.calls.clear()
    sent, open_before = len(either.producer.sent), either.delivery.is_open
    if state in LEGAL[call]:
        either.call(call)
        assert either.delivery.state is (State.OPEN if call == "produce" else State.READY)
    else:
        with pytest.raises(FatalDeliveryError, match=f"{call} in state {state.name}; legal in [A-Z]+"):
            either.call(call)
        assert either.delivery.state is state
        assert either.delivery.is_open is open_before
        assert either.producer.calls == []
        assert either.consumer.calls == []
        assert len(either.producer.sent) == sent


def test_the_table_names_every_call_of_a_delivery() -> None:
    assert LEGAL.keys() == {"produce", "commit", "abort"}
    assert State.FATAL not in frozenset().union(*LEGAL.values())


@pytest.mark.parametrize(
    ("state", "is_open"), [(State.READY, False), (State.OPEN, True), (State.BROKEN, True), (State.FATAL, False)]
)
def test_open_until_committed_or_aborted(either: Bench, state: State, *, is_open: bool) -> None:
    either.bring_to(state)
    assert either.delivery.is_open is is_open


# -- transactions -----------------------------------------------------------------------------------------------------


def test_starting_settles_what_was_left_behind(bench: Bench) -> None:
    assert bench.producer.timeouts_s == [BUDGET_S]
    assert bench.delivery.state is State.READY


def test_starting_is_tried_again_and_given_up_at_the_deadline() -> None:
    clock = ManualClock()
    producer = FakeProducer(clock)
    producer.on("init_transactions", failing(RETRIABLE), lambda: clock.advance(99.0), failing(RETRIABLE))
    Transaction(producer.as_producer, lambda: None, deadline=Deadline.after(1.0, clock))
    assert producer.calls == ["init_transactions", "poll", "init_transactions"]
    with pytest.raises(FatalDeliveryError, match="init_transactions: not settled in time: reason -185"):
        Transaction(producer.as_producer, lambda: None, deadline=Deadline.after(0.0, clock))


def test_the_first_output_opens_and_a_commit_takes_all(bench: Bench) -> None:
    bench.produce()
    bench.produce()
    bench.commit()
    assert bench.producer.calls == [
        "begin_transaction",
        *(["produce"] * 4),
        "send_offsets_to_transaction",
        "commit_transaction",
    ]
    assert [(p.topic, p.partition, p.offset) for p in bench.producer.offsets] == [(TOPIC, *place) for place in OFFSETS]
    assert bench.producer.metadata == "metadata"
    assert bench.consumer.calls == []


def test_positions_without_outputs_have_a_transaction_of_their_own(bench: Bench) -> None:
    bench.commit()
    assert bench.producer.calls == ["begin_transaction", "send_offsets_to_transaction", "commit_transaction"]
    assert bench.delivery.state is State.READY


def test_messages_are_sent_as_they_are(bench: Bench) -> None:
    bench.produce(outgoing(headers=True))
    assert bench.producer.sent == [
        {"topic": "out", "value": b"v0", "key": b"k0", "partition": 0, "timestamp": 100, "headers": [("row", b"0")]},
        {"topic": "out", "value": None, "key": b"k1", "partition": 1, "timestamp": 0, "headers": [("row", b"1")]},
    ]


def test_without_partitions_the_producer_chooses(bench: Bench) -> None:
    bench.produce(Outgoing(topic="out", keys=[b"k"], values=[b"v"], partitions=None, timestamps_ms=[5]))
    assert bench.producer.sent == [{"topic": "out", "value": b"v", "key": b"k", "partition": -1, "timestamp": 5}]


def test_columns_of_different_lengths_are_a_bug(bench: Bench) -> None:
    with pytest.raises(ValueError, match="zip"):
        bench.produce(Outgoing(topic="out", keys=[], values=[b"v"], partitions=None, timestamps_ms=[5]))


CALLS = ("begin_transaction", "send_offsets_to_transaction", "commit_transaction")


@pytest.mark.parametrize("call", CALLS)
def test_a_retriable_error_means_the_same_call_again_with_what_is_left(bench: Bench, call: str) -> None:
    bench.producer.on(call, failing(RETRIABLE), failing(RETRIABLE))
    bench.commit()
    assert bench.producer.calls.count(call) == 3
    assert bench.producer.calls.count("poll") == 2
    assert [again for again in CALLS if bench.producer.calls.count(again) == 1] == [c for c in CALLS if c != call]
    assert bench.delivery.state is State.READY
    assert bench.producer.timeouts_s == sorted(bench.producer.timeouts_s, reverse=True)
    assert bench.producer.timeouts_s[-1] == pytest.approx(BUDGET_S - 0.1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("error", "expected", "state"),
    [
        (ABORTABLE, AbortableError, State.BROKEN),
        (FATAL, FatalDeliveryError, State.FATAL),
        (FENCING, FencedError, State.FATAL),
        (kafka_error(KafkaError.UNKNOWN), FatalDeliveryError, State.FATAL),
    ],
)
def test_any_other_error_ends_the_transaction(
    bench: Bench, call: str, error: KafkaError, expected: type[DeliveryError], state: State
) -> None:
    bench.producer.on(call, failing(error))
    with pytest.raises(DeliveryError, match=call) as caught:
        bench.commit()
    assert type(caught.value) is expected
    assert bench.delivery.state is state
    assert bench.producer.calls[-1] == call


@pytest.mark.parametrize(
    ("call", "expected", "state"),
    [
        ("begin_transaction", FatalDeliveryError, State.FATAL),
        ("send_offsets_to_transaction", AbortableError, State.BROKEN),
        ("commit_transaction", FatalDeliveryError, State.FATAL),  # nobody knows whether it happened
        ("abort_transaction", FatalDeliveryError, State.FATAL),
    ],
)
def test_what_is_not_settled_by_the_deadline(
    bench: Bench, call: str, expected: type[DeliveryError], state: State
) -> None:
    bench.producer.on(call, *[failing(RETRIABLE)] * 1000)
    if call == "abort_transaction":
        bench.produce()
    with pytest.raises(DeliveryError, match=f"{call}: not settled in time") as caught:
        bench.call("abort" if call == "abort_transaction" else "commit")
    assert type(caught.value) is expected
    assert bench.delivery.state is state
    assert bench.clock() == pytest.approx(1000.0 + BUDGET_S)


def test_an_error_that_says_what_it_is_counts_at_the_deadline_too(bench: Bench) -> None:
    bench.producer.on("send_offsets_to_transaction", failing(FENCING))
    with pytest.raises(FencedError):
        bench.delivery.commit(POSITIONS, bench.deadline(0.0))
    assert bench.delivery.state is State.FATAL


def test_after_an_abortable_error_abort_makes_it_ready_again(bench: Bench) -> None:
    bench.bring_to(State.BROKEN)
    bench.abort()
    assert bench.delivery.state is State.READY
    assert bench.producer.calls[-1] == "abort_transaction"
    bench.produce()
    assert bench.producer.calls.count("begin_transaction") == 2


def test_abort_with_nothing_open_asks_nobody(bench: Bench) -> None:
    bench.abort()
    assert bench.producer.calls == []


def test_a_transaction_that_did_not_begin_sends_nothing(bench: Bench) -> None:
    bench.producer.on("begin_transaction", failing(FATAL))
    with pytest.raises(FatalDeliveryError):
        bench.produce()
    assert bench.producer.sent == []


def test_closing_discards_what_is_queued(either: Bench) -> None:
    either.produce()
    either.delivery.close()
    assert either.producer.calls[-2:] == ["purge", "flush"]
    assert either.producer.timeouts_s[-1] == 0


def test_a_fenced_producer_is_left_in_silence(either: Bench) -> None:
    either.producer.on("purge", failing(FENCING))
    either.delivery.close()
    assert either.producer.calls[-1] == "purge"


# -- producing, both ways ---------------------------------------------------------------------------------------------


def test_a_full_local_queue_is_waited_for(either: Bench) -> None:
    either.producer.on("produce", None, BufferError(), BufferError())
    either.produce()
    assert [message["value"] for message in either.producer.sent] == [b"v0", None]
    assert either.delivery.state is State.OPEN
    assert either.clock() == pytest.approx(1000.02)


def test_a_queue_that_stays_full_breaks_the_transaction(either: Bench) -> None:
    either.producer.on("produce", *[BufferError()] * 10_000)
    with pytest.raises(AbortableError, match="producing to out: the local queue stayed full; is the broker down"):
        either.produce()
    assert either.delivery.state is State.BROKEN
    assert either.clock() == pytest.approx(1000.0 + BUDGET_S, abs=0.02)


@pytest.mark.parametrize(
    ("error", "expected", "state"),
    [
        (RETRIABLE, AbortableError, State.BROKEN),
        (ABORTABLE, AbortableError, State.BROKEN),
        (FATAL, FatalDeliveryError, State.FATAL),
        (FENCING, FencedError, State.FATAL),
        (kafka_error(KafkaError.MSG_SIZE_TOO_LARGE), FatalDeliveryError, State.FATAL),
    ],
)
def test_a_message_that_is_refused(
    either: Bench, error: KafkaError, expected: type[DeliveryError], state: State
) -> None:
    either.producer.on("produce", None, failing(error))
    with pytest.raises(DeliveryError, match="producing to out: reason") as caught:
        either.produce()
    assert type(caught.value) is expected
    assert either.delivery.state is state
    assert len(either.producer.sent) == 1


# -- at least once ----------------------------------------------------------------------------------------------------


def test_offsets_go_after_every_acknowledgement(plain: Bench) -> None:
    plain.produce()
    plain.producer.on("flush", lambda: plain.consumer.calls.append("flushed"))
    plain.commit()
    assert plain.consumer.calls == ["flushed", "commit"]
    assert plain.consumer.commits == [OFFSETS]
    assert plain.producer.timeouts_s == [BUDGET_S]
    assert plain.delivery.state is State.READY


def test_what_is_not_acknowledged_in_time_is_sent_again(plain: Bench) -> None:
    plain.produce()
    plain.producer.on("flush", lambda: 3)
    with pytest.raises(AbortableError, match="delivering forecasts: 3 messages not acknowledged in time"):
        plain.commit()
    assert plain.delivery.state is State.BROKEN
    assert plain.consumer.calls == []


def test_a_failed_delivery_commits_nothing_and_is_forgotten_by_abort(plain: Bench) -> None:
    plain.produce()
    plain.producer.on("flush", lambda: plain.failures.append(kafka_error(KafkaError._MSG_TIMED_OUT)))
    with pytest.raises(AbortableError, match="delivering forecasts: reason -192"):
        plain.commit()
    assert plain.consumer.commits == []
    plain.abort()
    assert plain.producer.calls[-2:] == ["purge", "flush"]
    plain.produce()
    plain.commit()
    assert plain.consumer.commits == [OFFSETS]


def commit_fails(plain: Bench, code: int, *, for_one_partition: bool) -> DeliveryError:
    places: list[Any] = [TopicPartition(TOPIC, 0, 9), FailedPlace(2, kafka_error(code))]
    plain.consumer.on("commit", (lambda: places) if for_one_partition else failing(kafka_error(code)))
    with pytest.raises(DeliveryError, match=f"committing offsets: reason {code}") as caught:
        plain.commit()
    return caught.value


@pytest.mark.parametrize("for_one_partition", [True, False])
@pytest.mark.parametrize("code", sorted(REGROUPED))
def test_a_group_that_moved_on_reads_again(plain: Bench, code: int, *, for_one_partition: bool) -> None:
    assert type(commit_fails(plain, code, for_one_partition=for_one_partition)) is AbortableError
    assert plain.delivery.state is State.BROKEN


@pytest.mark.parametrize("for_one_partition", [True, False])
def test_a_refused_commit_is_fatal(plain: Bench, *, for_one_partition: bool) -> None:
    error = commit_fails(plain, KafkaError.GROUP_AUTHORIZATION_FAILED, for_one_partition=for_one_partition)
    assert type(error) is FatalDeliveryError
    assert plain.delivery.state is State.FATAL


def test_a_static_member_that_was_replaced_is_fenced(plain: Bench) -> None:
    assert type(commit_fails(plain, KafkaError.FENCED_INSTANCE_ID, for_one_partition=False)) is FencedError


@pytest.mark.parametrize("code", sorted(PASSING))
def test_a_commit_that_may_pass_is_made_again(plain: Bench, code: int) -> None:
    plain.consumer.on("commit", failing(kafka_error(code)), failing(kafka_error(code)))
    plain.commit()
    assert plain.consumer.commits == [OFFSETS]
    assert plain.delivery.state is State.READY


def test_a_commit_that_does_not_pass_in_time_is_read_again(plain: Bench) -> None:
    plain.consumer.on("commit", *[failing(kafka_error(KafkaError._TRANSPORT))] * 1000)
    with pytest.raises(AbortableError, match="committing offsets: not settled in time"):
        plain.commit()
    assert plain.consumer.commits == []
    assert plain.clock() == pytest.approx(1000.0 + BUDGET_S)


def test_a_note_is_kept_with_each_offset_as_it_is_at_the_commit() -> None:
    clock, notes = ManualClock(), {0: "first", 2: "second"}
    producer = FakeProducer(clock)
    delivery = Transaction(
        producer.as_producer, lambda: "metadata", deadline=Deadline.after(1, clock), note=notes.__getitem__
    )
    notes[2] = "changed"
    delivery.commit(POSITIONS, Deadline.after(1, clock))
    assert [(place.partition, place.offset, place.metadata) for place in producer.offsets] == [
        (0, 9, "first"),
        (2, 5, "changed"),
    ]
