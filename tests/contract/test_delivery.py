"""What every delivery does: transactions in memory and on a real broker, and, but for what only transactions can
promise, delivery at least once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer

from tests.conftest import TopicFactory
from tests.helpers.asking import committed_offsets
from tests.helpers.memory import MemoryBroker, MemoryDelivery
from tests.helpers.topics import Isolation, read_messages
from tests.helpers.waiting import wait_until
from worker.deadline import Deadline
from worker.errors import FencedError
from worker.records import Header, Positions, Span
from worker.transaction import Delivery, Flushed, Outgoing, Transaction

PARTITIONS = 2
QUEUE_MESSAGES = 200
"""Room in the producer's own queue; far less than the largest batch here."""


@dataclass(frozen=True, order=True)
class Seen:
    """A message as a reader gets it."""

    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[Header, ...] = ()


class Place(Protocol):
    """A delivery, where it delivers to, and the group whose positions it commits."""

    delivery: Delivery
    source: str
    output: str

    def visible(self) -> list[Seen]:
        """What readers of committed messages see, in each partition's order."""
        ...

    def wait_sent(self, count: int) -> None:
        """Wait until the broker has `count` messages, committed or not."""
        ...

    def committed(self) -> dict[int, int]:
        """Partition -> the group's committed offset."""
        ...

    def close(self) -> None: ...


class MemoryPlace:
    """`Place` on a `MemoryBroker`."""

    def __init__(self) -> None:
        self._broker = MemoryBroker(PARTITIONS)
        self.delivery: Delivery = MemoryDelivery(self._broker)
        self.source, self.output = "in", "out"

    def visible(self) -> list[Seen]:
        return [
            Seen(m.partition or 0, m.key, m.value, m.timestamp_ms, tuple(m.headers)) for m in self._broker.published
        ]

    def wait_sent(self, count: int) -> None:
        del count

    def committed(self) -> dict[int, int]:
        return dict(self._broker.committed)

    def close(self) -> None:
        self.delivery.close()


class KafkaPlace:
    """`Place` on a real broker."""

    def __init__(self, bootstrap: str, source: str, output: str, guarantee: Literal["transaction", "flushed"]) -> None:
        self._bootstrap, self.source, self.output = bootstrap, source, output
        self._transactional = guarantee == "transaction"
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"group-{source}"})
        self.delivery = self.successor()

    def successor(self) -> Delivery:
        """A delivery as a restarted worker has it."""
        config: dict[str, Any] = {
            "bootstrap.servers": self._bootstrap,
            "enable.idempotence": True,
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "retry.backoff.ms": 10,
            "log_level": 2,
        }
        if self._transactional:
            producer = Producer({**config, "transactional.id": f"id-{self.source}"})
            return Transaction(producer, self._consumer.consumer_group_metadata, deadline=soon())
        failures: list[KafkaError] = []

        def failed(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        producer = Producer({**config, "delivery.report.only.error": True, "on_delivery": failed})
        return Flushed(producer, self._consumer, failures)

    def visible(self) -> list[Seen]:
        return self._seen("read_committed")

    def wait_sent(self, count: int) -> None:
        wait_until(lambda: len(self._seen("read_uncommitted")) >= count, f"{count} messages sent")

    def committed(self) -> dict[int, int]:
        found = committed_offsets(self._consumer, self.source, range(PARTITIONS))
        return {partition: offset for partition, offset in found.items() if offset >= 0}

    def close(self) -> None:
        self.delivery.close()
        self._consumer.close()

    def _seen(self, isolation: Isolation) -> list[Seen]:
        return [_seen(message) for message in read_messages(self._bootstrap, self.output, isolation)]


def _seen(message: Message) -> Seen:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    key, value = message.key(), message.value()
    return Seen(
        message.partition() or 0,
        key if key is None else bytes(key),
        value if value is None else bytes(value),
        message.timestamp()[1],
        tuple(pairs),
    )


def soon() -> Deadline:
    return Deadline.after(30.0, time.monotonic)


REAL = pytest.mark.kafka
TRANSACTIONS = ["memory", pytest.param("transaction", marks=REAL)]
ALL = [*TRANSACTIONS, pytest.param("flushed", marks=REAL)]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        made: Place = MemoryPlace()
    else:
        topics: TopicFactory = request.getfixturevalue("topics")
        kafka = request.getfixturevalue("kafka")
        source, output = topics("source", partitions=PARTITIONS), topics("output", partitions=PARTITIONS)
        made = KafkaPlace(kafka.bootstrap_servers, source, output, request.param)
    with closing(made):
        yield made


transactional = pytest.mark.parametrize("place", TRANSACTIONS, indirect=True)
every = pytest.mark.parametrize("place", ALL, indirect=True)


def outgoing(place: Place, values: Sequence[bytes | None], *, partition: int = 0, **changes: Any) -> Outgoing:
    count = len(values)
    columns: dict[str, Any] = {
        "keys": [f"key {row}".encode() for row in range(count)],
        "values": values,
        "partitions": [partition] * count,
        "timestamps_ms": [1_700_000_000_000 + row for row in range(count)],
    }
    return Outgoing(topic=place.output, **(columns | changes))


def commit(place: Place, ends: dict[int, int], *, visible: int, firsts: dict[int, int] | None = None) -> None:
    """Commit these positions (partition -> next offset), and wait until readers see `visible` messages.

    A broker answers when the commit is certain; the markers that let readers pass are written right after that.
    """
    first = firsts or {}
    spans = {partition: Span(first.get(partition, 0), end) for partition, end in ends.items()}
    place.delivery.commit(Positions(place.source, spans, 1), soon())
    wait_until(lambda: len(place.visible()) >= visible, f"{visible} messages are visible")


def values(place: Place, partition: int = 0) -> list[bytes | None]:
    return [message.value for message in place.visible() if message.partition == partition]


# -- committing -------------------------------------------------------------------------------------------------------


@transactional
def test_nothing_is_visible_before_the_commit_and_all_of_it_after(place: Place) -> None:
    place.delivery.produce(outgoing(place, [b"a", b"b"]), soon())
    place.delivery.produce(outgoing(place, [b"c"], partition=1), soon())
    place.wait_sent(3)
    assert (place.visible(), place.committed()) == ([], {})
    commit(place, {0: 2, 1: 5}, visible=3)
    assert (values(place), values(place, 1)) == ([b"a", b"b"], [b"c"])
    assert place.committed() == {0: 2, 1: 5}


@every
def test_positions_are_committed_together_with_their_outputs_one_transaction_after_another(place: Place) -> None:
    for number in range(3):
        place.delivery.produce(outgoing(place, [str(number).encode()] * 2), soon())
        commit(place, {0: 2 * number + 2}, visible=2 * number + 2, firsts={0: 2 * number})
        assert len(values(place)) == 2 * number + 2
        assert place.committed() == {0: 2 * number + 2}
    assert values(place) == [b"0", b"0", b"1", b"1", b"2", b"2"]


@every
def test_positions_may_be_committed_without_outputs(place: Place) -> None:
    commit(place, {0: 7, 1: 3}, visible=0)
    assert (place.visible(), place.committed(), place.delivery.is_open) == ([], {0: 7, 1: 3}, False)


@every
def test_it_is_open_from_the_first_output_to_the_commit_or_the_abort(place: Place) -> None:
    states = [place.delivery.is_open]
    place.delivery.produce(outgoing(place, [b"a"]), soon())
    states.append(place.delivery.is_open)
    place.delivery.produce(outgoing(place, [b"b"]), soon())
    states.append(place.delivery.is_open)
    commit(place, {0: 2}, visible=2)
    states.append(place.delivery.is_open)
    place.delivery.produce(outgoing(place, [b"c"]), soon())
    states.append(place.delivery.is_open)
    place.delivery.abort(soon())
    states.append(place.delivery.is_open)
    assert states == [False, True, True, False, True, False]


# -- aborting ---------------------------------------------------------------------------------------------------------


@transactional
def test_an_abort_leaves_nothing_and_the_next_transaction_works(place: Place) -> None:
    place.delivery.produce(outgoing(place, [b"wrong"] * 3), soon())
    place.wait_sent(3)
    place.delivery.abort(soon())
    assert (place.visible(), place.committed()) == ([], {})
    place.delivery.produce(outgoing(place, [b"right"]), soon())
    commit(place, {0: 3}, visible=1)
    assert (values(place), place.committed()) == ([b"right"], {0: 3})


@transactional
def test_an_abort_right_after_producing_leaves_nothing_either(place: Place) -> None:
    place.delivery.produce(outgoing(place, [b"wrong"] * 50), soon())
    place.delivery.abort(soon())
    place.delivery.produce(outgoing(place, [b"right"]), soon())
    commit(place, {0: 50}, visible=1)
    assert values(place) == [b"right"]


@every
def test_an_abort_with_nothing_open_does_nothing(place: Place) -> None:
    place.delivery.abort(soon())
    place.delivery.abort(soon())
    place.delivery.produce(outgoing(place, [b"a"]), soon())
    commit(place, {0: 1}, visible=1)
    assert values(place) == [b"a"]


@every
def test_after_an_abort_the_outputs_may_be_produced_again(place: Place) -> None:
    place.delivery.produce(outgoing(place, [b"a", b"b"]), soon())
    place.delivery.abort(soon())
    place.delivery.produce(outgoing(place, [b"a", b"b"]), soon())
    commit(place, {0: 2}, visible=2)
    assert values(place)[-2:] == [b"a", b"b"]
    assert place.committed() == {0: 2}


@transactional
def test_closing_leaves_nothing_of_what_was_not_committed(place: Place) -> None:
    place.delivery.produce(outgoing(place, [b"a"]), soon())
    commit(place, {0: 1}, visible=1)
    place.delivery.produce(outgoing(place, [b"never"]), soon())
    place.wait_sent(2)
    place.delivery.close()
    assert (values(place), place.committed()) == ([b"a"], {0: 1})


# -- messages ---------------------------------------------------------------------------------------------------------


@every
def test_messages_arrive_as_they_were_given(place: Place) -> None:
    place.delivery.produce(
        outgoing(
            place,
            [b"a", None, b"", b"d"],
            keys=[b"k", b"gone", b"empty", None],
            partitions=[1, 0, 1, 0],
            timestamps_ms=[1_600_000_000_000, 1_600_000_000_001, 1_600_000_000_002, 1_600_000_000_003],
        ),
        soon(),
    )
    commit(place, {0: 4}, visible=4)
    by_partition = [[m for m in place.visible() if m.partition == partition] for partition in range(PARTITIONS)]
    assert by_partition == [
        [Seen(0, b"gone", None, 1_600_000_000_001), Seen(0, None, b"d", 1_600_000_000_003)],
        [Seen(1, b"k", b"a", 1_600_000_000_000), Seen(1, b"empty", b"", 1_600_000_000_002)],
    ]


@every
def test_headers_arrive_with_their_message(place: Place) -> None:
    headers: list[list[Header]] = [[("model", b"m"), ("source", b"in/0/1")], []]
    place.delivery.produce(outgoing(place, [b"a", b"b"], headers=headers), soon())
    commit(place, {0: 2}, visible=2)
    assert [message.headers for message in place.visible()] == [(("model", b"m"), ("source", b"in/0/1")), ()]


@every
def test_far_more_messages_than_the_local_queue_holds_arrive_in_order(place: Place) -> None:
    many = [str(number).encode() for number in range(20 * QUEUE_MESSAGES)]
    place.delivery.produce(outgoing(place, many), soon())
    commit(place, {0: len(many)}, visible=len(many))
    assert values(place) == many


# -- what only a broker can do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [pytest.param("transaction", marks=REAL)], indirect=True)
def test_a_successor_fences_its_predecessor_and_settles_what_that_left(place: KafkaPlace) -> None:
    first = place.delivery
    first.produce(outgoing(place, [b"left behind"]), soon())
    place.wait_sent(1)
    place.delivery = place.successor()
    place.delivery.produce(outgoing(place, [b"successor's"]), soon())
    commit(place, {0: 1}, visible=1)
    assert (values(place), place.committed()) == ([b"successor's"], {0: 1})
    with pytest.raises(FencedError, match="Another worker has taken over"):
        first.commit(Positions(place.source, {0: Span(0, 9)}, 9), soon())
    assert (values(place), place.committed()) == ([b"successor's"], {0: 1})
    first.close()


@pytest.mark.parametrize(
    "place", [pytest.param(name, marks=REAL) for name in ("transaction", "flushed")], indirect=True
)
def test_without_partitions_the_key_decides(place: Place) -> None:
    for _ in range(2):
        place.delivery.produce(outgoing(place, [b"v"] * 20, partitions=None), soon())
    commit(place, {0: 40}, visible=40)
    partitions: dict[bytes | None, set[int]] = {}
    for message in place.visible():
        partitions.setdefault(message.key, set()).add(message.partition)
    assert {len(found) for found in partitions.values()} == {1}
    assert set().union(*partitions.values()) == set(range(PARTITIONS))
