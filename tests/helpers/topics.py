"""Puts messages on a topic of a real broker and reads them all back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.helpers.asking import bounds_of, passes
from tests.helpers.waiting import wait_until

Isolation = Literal["read_committed", "read_uncommitted"]


class Sent(NamedTuple):
    """What `produce` takes; a plain tuple in this order will do."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    partition: int


class Stored(NamedTuple):
    """A message as it lies on the topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def produce(bootstrap: str, topic: str, messages: Sequence[Sent | tuple[bytes | None, bytes | None, int, int]]) -> None:
    """Write the messages, in order per partition, and wait until the broker has them all.

    Raises `AssertionError` with the first refusal.
    """
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    unknown_topic = {"topic.metadata.propagation.max.ms": 2000}  # 30 s by default, for topics made on first use
    large = {"message.max.bytes": 10_000_000}  # whatever the topic takes
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, **unknown_topic, **large}
    )
    for key, value, timestamp_ms, partition in messages:
        if len(producer) > 50_000:
            producer.poll(0.1)
        producer.produce(
            topic, value=value, key=key, partition=partition, timestamp=timestamp_ms, on_delivery=delivered
        )
    assert producer.flush(90.0) == 0, f"{len(producer)} messages weren't delivered to {topic} within 90 s"
    assert not refused, f"{len(refused)} messages refused by {topic}, the first with: {refused[0]}"


def read_all(
    bootstrap: str, topic: str, isolation: Isolation = "read_committed", timeout_s: float = 90.0
) -> list[Stored]:
    """All messages from the beginning to the end that each partition had when this was called, partition by partition.

    The end is the last stable offset under "read_committed": messages of a transaction still open, and what follows them, aren't
    waited for. Done is told by position and not by count, because transaction markers and aborted messages take offsets too.
    """
    return sorted(stored_from_message(message) for message in read_messages(bootstrap, topic, isolation, timeout_s))


def read_messages(
    bootstrap: str, topic: str, isolation: Isolation = "read_committed", timeout_s: float = 90.0
) -> list[Message]:
    """What `read_all` reads, as confluent_kafka gives it (with headers), in the order of arrival."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"read-all-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "isolation.level": isolation,
        }
    )
    try:
        return _read(consumer, topic, timeout_s)
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, timeout_s: float) -> list[Message]:
    bounds = {partition: span for partition, span in bounds_of(consumer, topic).items() if span[0] < span[1]}
    ends = {partition: high for partition, (_, high) in bounds.items()}
    starts = [TopicPartition(topic, partition, low) for partition, (low, _) in bounds.items()]
    consumer.assign(starts)
    found: list[Message] = []

    def finished() -> bool:
        for message in consumer.consume(10_000, 0.05):
            if (error := message.error()) is not None:
                assert passes(error), f"reading {topic}: {error}"
            elif _offset(message) < ends[_partition(message)]:
                found.append(message)
        return all(at.offset >= ends[at.partition] for at in consumer.position(starts))

    if starts:
        wait_until(finished, f"{topic} read up to {ends}", timeout_s)
    return found


def stored_from_message(message: Message) -> Stored:
    """The parts of a consumed message that tests compare."""
    key, value = message.key(), message.value()
    return Stored(
        partition=_partition(message),
        offset=_offset(message),
        key=key if key is None else bytes(key),
        value=value if value is None else bytes(value),
        timestamp_ms=message.timestamp()[1],
    )


def _partition(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
