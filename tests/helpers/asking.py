"""Questions to a real broker, asked again while it is busy with something else: starting up, or with a topic just made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

T = TypeVar("T")

PASSING = frozenset(
    {
        *(KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._WAIT_COORD),
        *(KafkaError._UNKNOWN_PARTITION, KafkaError._RESOLVE),
        *(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.REPLICA_NOT_AVAILABLE),
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE),
        *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR),
        *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.NETWORK_EXCEPTION, KafkaError.REQUEST_TIMED_OUT),
        *(KafkaError.KAFKA_STORAGE_ERROR, KafkaError.NOT_CONTROLLER, KafkaError.CONCURRENT_TRANSACTIONS),
    }
)
"""Errors that pass by themselves. Plain requests, unlike transactions', don't say so of their errors."""


def passes(error: KafkaError) -> bool:
    """Whether the same question may be answered a moment later."""
    return error.retriable() or error.code() in PASSING


def ask(question: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """The answer to `question`, which is asked again while it raises an error that passes.

    Raises `AssertionError` naming `what` when none came within `timeout_s`, and any other error at once.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return question()
        except KafkaException as exception:
            if not passes(exception.args[0]):
                raise
            if time.monotonic() >= deadline_s:
                raise AssertionError(f"not within {timeout_s:g} s: {what}: {exception.args[0]}") from exception
        time.sleep(0.05)


def committed_offsets(consumer: Consumer, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
    """Partition -> offset that the consumer's group has committed, -1001 where it has none."""

    def question() -> Mapping[int, int]:
        places = consumer.committed([TopicPartition(topic, partition) for partition in partitions], timeout=10.0)
        for place in places:
            if place.error is not None:
                raise KafkaException(place.error)
        return {place.partition: place.offset for place in places if place.offset is not None}

    return ask(question, f"what is committed for {topic}")


def partitions_of(consumer: Consumer, topic: str) -> Sequence[int]:
    """The partitions of a topic, each of which has a leader; none while there is no such topic."""

    def question() -> Sequence[int]:
        found = consumer.list_topics(topic, timeout=10.0).topics[topic]
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return []
        for error in (found.error, *(partition.error for partition in found.partitions.values())):
            if error is not None:
                raise KafkaException(error)
        return sorted(found.partitions)

    return ask(question, f"the partitions of {topic}")


def bounds_of(consumer: Consumer, topic: str) -> Mapping[int, tuple[int, int]]:
    """Partition -> first offset and end (under "read_committed": the last stable offset); empty if there is no such topic."""

    def question(partition: int) -> tuple[int, int]:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10.0)
        return int(low), int(high)

    return {
        partition: ask(lambda: question(partition), f"the ends of {topic}[{partition}]")  # noqa: B023 - called at once
        for partition in partitions_of(consumer, topic)
    }
