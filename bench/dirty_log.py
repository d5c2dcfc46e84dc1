"""A log as it really gets: transactions committed and aborted, markers, compaction holes, truncated segments.

The independent reader that goes with it is a plain consumer of committed records; it shares no code with the worker.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from demo.events import PARTITIONER, Event

TOPIC_CONFIG: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact,delete",  # records can be deleted by hand only where there is delete
    "segment.bytes": str(1 << 20),  # the least that a broker takes
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "0",
}
"""A topic that is compacted as soon as it can be."""
TRANSACTION_EVENTS: Final = 1500
ABORT_EVERY: Final = 4
"""So often a transaction is first aborted, and then sent once more."""


class Place(NamedTuple):
    """A record: where it lies, and its key."""

    partition: int
    offset: int
    key: bytes


def fill(bootstrap_servers: str, topic: str, events: Iterable[Event]) -> None:
    """Send `events` in transactions, some of which are aborted first; the last one is aborted, too, and not sent again."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "transactional.id": f"dirty-{uuid.uuid4()}",
            "partitioner": PARTITIONER,
            "retry.backoff.ms": 10,
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
        }
    )
    producer.init_transactions()
    last: list[Event] = []
    for number, chunk in enumerate(_chunks(iter(events))):
        if number % ABORT_EVERY == 0:
            _send(producer, topic, chunk)
            producer.abort_transaction()
        _send(producer, topic, chunk)
        producer.commit_transaction()
        last = chunk
    _send(producer, topic, last)
    producer.abort_transaction()


def wait_for_holes(bootstrap_servers: str, topic: str, before: int, timeout_s: float = 120.0) -> int:
    """Wait until compaction has removed some of the `before` records that could be read: how many are left."""
    deadline_s = time.monotonic() + timeout_s
    while (left := len(read(bootstrap_servers, topic))) >= before:
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"{topic} wasn't compacted within {timeout_s:g} s")
        time.sleep(0.2)
    return left


def truncate(bootstrap_servers: str, topic: str, until: Mapping[int, int]) -> None:
    """Delete all records before these offsets (partition -> offset)."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    asked = admin.delete_records([TopicPartition(topic, partition, offset) for partition, offset in until.items()])
    for future in asked.values():
        future.result(30.0)


def read(bootstrap_servers: str, topic: str, take: Callable[[bytes | None], bool] = lambda _: True) -> list[Place]:
    """Every committed record that `topic` has now and whose value `take` wants, by a plain consumer."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reader-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    try:
        return sorted(_places(consumer, topic, take))
    finally:
        consumer.close()


def _places(consumer: Consumer, topic: str, take: Callable[[bytes | None], bool]) -> Iterator[Place]:
    partitions = consumer.list_topics(topic, timeout=30.0).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    ended: set[int] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(10_000, 0.2):
            partition, error, key = int(message.partition() or 0), message.error(), message.key()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes start so
                    raise RuntimeError(f"reading {topic}: {error}")
                ended.add(partition)
            elif take(message.value()):
                yield Place(partition, int(message.offset() or 0), bytes(key or b""))


def _send(producer: Producer, topic: str, events: list[Event]) -> None:
    producer.begin_transaction()
    for event in events:
        while True:
            try:
                producer.produce(topic, event.value, event.key)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()


def _chunks(events: Iterator[Event]) -> Iterator[list[Event]]:
    while chunk := list(islice(events, TRANSACTION_EVENTS)):
        yield chunk
