"""Whether a contender did its job: a run that lost, repeated or misplaced anything is no measurement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

TIMEOUT_S = 120.0

Keys = Counter[tuple[int, bytes | None]]
"""How many messages each partition holds of each key."""


class InvalidRunError(RuntimeError):
    """A contender's output isn't what its input calls for."""


def keys_of(bootstrap_servers: str, topic: str) -> Keys:
    """Counts every message of `topic`, committed ones only, by partition and key. Raises `TimeoutError`."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "bench-verify",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic, 10.0).topics[topic].partitions]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=10.0)[1] for p in partitions}
        consumer.assign(partitions)
        found: Keys = Counter()
        deadline_s = time.monotonic() + TIMEOUT_S
        # By position, not by count: transaction markers take offsets too.
        while any(place.offset < ends[place.partition] for place in consumer.position(_nonempty(partitions, ends))):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{topic}: read {found.total()} messages in {TIMEOUT_S:g} s, and not all")
            messages = consumer.consume(20_000, 0.05)
            found.update((message.partition() or 0, message.key()) for message in messages)
        return found
    finally:
        consumer.close()


def check_output(bootstrap_servers: str, topic: str, expected: Keys) -> None:
    """Raises `InvalidRunError` unless `topic` holds one message per input event: same key, same partition."""
    found = keys_of(bootstrap_servers, topic)
    if found != expected:
        lost, extra = (expected - found).total(), (found - expected).total()
        raise InvalidRunError(
            f"{topic}: {found.total()} messages, expected {expected.total()}; {lost} missing, {extra} too many"
        )


def check_offsets(bootstrap_servers: str, group: str, topic: str, expected: Keys) -> None:
    """Raises `InvalidRunError` unless `group` has committed the end of every partition of `topic`."""
    ends: Counter[int] = Counter()
    for (partition, _), count in expected.items():
        ends[partition] += count
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    try:
        places = consumer.committed([TopicPartition(topic, partition) for partition in ends], timeout=10.0)
    finally:
        consumer.close()
    committed = {place.partition: place.offset for place in places}
    if committed != dict(ends):
        raise InvalidRunError(f"group {group}: committed {committed}, expected {dict(ends)}")


def _nonempty(partitions: Sequence[TopicPartition], ends: dict[int, int]) -> list[TopicPartition]:
    return [place for place in partitions if ends[place.partition] > 0]
