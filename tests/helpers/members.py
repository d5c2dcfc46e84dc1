"""A member of a group on a topic, in memory or on a real broker, and what the source's contract needs done around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import Any, Literal, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.helpers.asking import ask, committed_offsets
from tests.helpers.clock import ManualClock
from tests.helpers.memory import MemoryBroker, MemorySource
from tests.helpers.waiting import SLOW_S, wait_until
from worker.records import Record
from worker.source import KafkaSource, Source

PARTITIONS = 3
Place = tuple[int, int]
"""Partition and offset."""
Told = tuple[str, frozenset[int], frozenset[int]]
"""What the listener was told, of which partitions, and what the source held at that moment."""


class Notes:
    """A listener that writes down what it is told. `then` has what it does besides."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.told: list[Told] = []
        self.then: dict[str, Callable[[frozenset[int]], None]] = {}

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self._note("assigned", partitions)

    def on_revoked(self, partitions: frozenset[int]) -> None:
        self._note("revoked", partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        self._note("lost", partitions)

    def of(self, kind: str) -> list[Told]:
        return [told for told in self.told if told[0] == kind and told[1]]

    def _note(self, kind: str, partitions: frozenset[int]) -> None:
        self.told.append((kind, partitions, self._source.assigned))
        if kind in self.then:
            self.then[kind](partitions)


class Member(Protocol):
    """One source, its topic and its group."""

    source: Source
    clock: ManualClock
    notes: Notes

    def append(self, partition: int, count: int, timestamp_ms: int = 1000) -> None:
        """Put `count` records at the end of a partition."""
        ...

    def commit(self, partition: int, offset: int) -> None:
        """Commit for the group, as this member."""
        ...

    def committed(self, partition: int) -> int | None:
        """What the group has committed."""
        ...

    def join(self) -> None:
        """Ask for all partitions; they come within the next polls."""
        ...

    def share(self) -> Any:
        """A context manager: within it, a second member takes some partitions, once this one polls."""
        ...

    def fall_out(self) -> None:
        """Have the group give this member up. It learns of that by its next polls."""
        ...

    def close(self) -> None:
        """Leave the group, and wait until the group is empty."""
        ...


class MemoryMember:
    """`Member` on a `MemoryBroker`."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(PARTITIONS)
        self.clock = ManualClock()
        self._source = MemorySource(self.broker, self.clock)
        self.source: Source = self._source
        self.notes = Notes(self.source)
        self.source.subscribe(self.notes)

    def append(self, partition: int, count: int, timestamp_ms: int = 1000) -> None:
        for _ in range(count):
            self.broker.append(partition, b"key", b"value", timestamp_ms=timestamp_ms)

    def commit(self, partition: int, offset: int) -> None:
        self.broker.committed[partition] = offset

    def committed(self, partition: int) -> int | None:
        return self.broker.committed.get(partition)

    def join(self) -> None:
        self._source.assign(*range(PARTITIONS))

    @contextmanager
    def share(self) -> Iterator[None]:
        self._source.revoke(PARTITIONS - 1)
        yield
        self._source.assign(PARTITIONS - 1)

    def fall_out(self) -> None:
        self._source.lose(*range(PARTITIONS))
        self._source.assign(*range(PARTITIONS))

    def close(self) -> None:
        self.source.close()


class KafkaMember:
    """`Member` on a real broker."""

    def __init__(
        self, bootstrap: str, topic: str, protocol: Literal["classic", "consumer"], max_poll_s: float = 60.0
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._config: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": f"group-{topic}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "max.poll.interval.ms": int(max_poll_s * 1000),
            "fetch.wait.max.ms": 20,
            "log_level": 2,  # librdkafka would print what the tests provoke
        }
        if protocol == "consumer":
            self._config["group.protocol"] = "consumer"
        else:
            self._config["partition.assignment.strategy"] = "cooperative-sticky"
            self._config["session.timeout.ms"] = min(6000, int(max_poll_s * 1000))
            self._config["heartbeat.interval.ms"] = 300
        self.clock = ManualClock()
        self._consumer = Consumer(self._config)
        self.source: Source = KafkaSource(self._consumer, topic, clock=self.clock)
        self.notes = Notes(self.source)
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 2})
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._closed = False

    def append(self, partition: int, count: int, timestamp_ms: int = 1000) -> None:
        for _ in range(count):
            self._producer.produce(self._topic, b"value", b"key", partition, timestamp=timestamp_ms)
        assert self._producer.flush(30.0) == 0

    def commit(self, partition: int, offset: int) -> None:
        place = TopicPartition(self._topic, partition, offset)

        def commit() -> None:
            places = self._consumer.commit(offsets=[place], asynchronous=False)
            assert places is not None
            if places[0].error is not None:
                raise KafkaException(places[0].error)

        ask(commit, f"{place} committed")

    def committed(self, partition: int) -> int | None:
        with closing(Consumer({"bootstrap.servers": self._bootstrap, "group.id": self._config["group.id"]})) as asking:
            offset = committed_offsets(asking, self._topic, [partition]).get(partition, -1)
        return None if offset < 0 else offset

    def join(self) -> None:
        self.source.subscribe(self.notes)

    @contextmanager
    def share(self) -> Iterator[None]:
        stop, settled = Event(), Event()

        def work() -> None:
            with closing(Consumer(self._config)) as second:
                second.subscribe([self._topic])
                while not stop.is_set():
                    second.poll(0.05)
                    if second.assignment():
                        settled.set()

        thread = Thread(target=work)
        thread.start()
        try:
            yield
            settled.wait(SLOW_S)  # whoever leaves in the midst of a rebalance is waited for until its session times out
        finally:
            stop.set()
            thread.join()

    def fall_out(self) -> None:
        wait_until(self._is_empty, "the group is empty")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.source.close()
            wait_until(self._is_empty, "the group is empty")

    def _is_empty(self) -> bool:
        group = str(self._config["group.id"])

        def empty() -> bool:
            found = self._admin.describe_consumer_groups([group], request_timeout=10.0)[group].result(10.0)
            return not found.members

        try:
            return ask(empty, f"the members of {group}")
        except KafkaException as exception:
            if exception.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            return True


def gather(member: Member, wanted: int, *, at_a_time: int = 100) -> list[Record]:
    """Poll until `wanted` records were given, and ask for no more."""
    found: list[Record] = []

    def enough() -> bool:
        if len(found) < wanted:
            found.extend(member.source.poll(min(at_a_time, wanted - len(found)), 0.1))
        return len(found) >= wanted

    wait_until(enough, f"{wanted} records of {PARTITIONS} partitions")
    return found


def joined(member: Member) -> None:
    """Join, and poll until all partitions are there."""

    def there() -> bool:
        member.source.poll(0, 0.1)
        return len(member.source.assigned) == PARTITIONS

    member.join()
    wait_until(there, "all partitions are assigned")


def offsets(records: list[Record], partition: int) -> list[int]:
    """The offsets of one partition, in the order in which they were polled."""
    return [record.offset for record in records if record.partition == partition]
