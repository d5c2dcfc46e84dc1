"""Asks a broker again while its answer is one that passes: a leader that moves, a topic that was made a moment ago.

librdkafka retries what it does by itself (fetching, producing, joining a group), but a question that a caller asks is answered
once, also by a broker that doesn't know yet. So every question goes through `answered`, within the time that its caller has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

T = TypeVar("T")

MOVING: Final = frozenset(
    {
        *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REPLICA_NOT_AVAILABLE),
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE),
        *(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR),
        *(KafkaError.KAFKA_STORAGE_ERROR, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.STALE_MEMBER_EPOCH),
        *(KafkaError.NETWORK_EXCEPTION, KafkaError.REQUEST_TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT),
        *(KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE),  # noqa: SLF001 - local codes
        *(KafkaError._WAIT_COORD, KafkaError._ALL_BROKERS_DOWN),  # noqa: SLF001 - begin with an underscore
    }
)
"""Errors that pass by themselves as soon as the cluster has settled."""
UNKNOWN: Final = frozenset(
    {
        *(KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID),
        *(KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION),  # noqa: SLF001 - see above
    }
)
"""Errors of a topic that isn't there, or that this broker hasn't heard of yet."""
UNKNOWN_S: Final = 3.0
"""A new topic is known to all brokers well before; one that is unknown for longer doesn't exist."""
PAUSE_S: Final = 0.05
LEAST_S: Final = 0.1
"""A question gets so long at least, also the last one: with no time at all there is no answer."""


class Asked(Protocol):
    """A client that knows topics: `confluent_kafka.Consumer`, or an `AdminClient`."""

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ANN401 - confluent_kafka.admin.ClusterMetadata
        """See confluent_kafka."""
        ...


class Watermarks(Protocol):
    """A client that can be asked for the ends of a partition: `confluent_kafka.Consumer`."""

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        """See confluent_kafka."""
        ...


def answered(
    ask: Callable[[float], T],
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """What `ask(timeout_s)` returns, asked again while it raises an error that passes, for `within_s` seconds in all.

    An `ask` that waits for a future may raise `TimeoutError`: that passes, too. clock: monotonic. Raises the last
    `KafkaException` then (for a time-out one with that code), and any other at once.
    """
    began_s = clock()
    while True:
        try:
            return ask(max(LEAST_S, began_s + within_s - clock()))
        except KafkaException as exception:
            failure = exception
        except TimeoutError as exception:
            failure = KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer within {within_s:g} s"))  # noqa: SLF001
            failure.__cause__ = exception
        code = failure.args[0].code()
        patience_s = min(within_s, UNKNOWN_S) if code in UNKNOWN else within_s if code in MOVING else 0.0
        left_s = began_s + patience_s - clock()
        if left_s <= 0:
            raise failure
        pause(min(PAUSE_S, left_s))


def partitions_of(
    client: Asked,
    topic: str,
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[int, int]:
    """Partition -> number of its copies. Raises `KafkaException` as `answered` does, also if the topic isn't there."""

    def ask(timeout_s: float) -> Mapping[int, int]:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        if not found.partitions:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "the topic has no partitions yet"))
        return {number: len(partition.replicas) for number, partition in sorted(found.partitions.items())}

    return answered(ask, within_s, clock=clock, pause=pause)


def ends_of(
    client: Watermarks,
    topic: str,
    partition: int,
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """The partition's oldest offset and the one behind its newest (as `isolation.level` has it). Raises as `answered` does."""
    place = TopicPartition(topic, partition)
    low, high = answered(
        lambda timeout_s: client.get_watermark_offsets(place, timeout=timeout_s), within_s, clock=clock, pause=pause
    )
    return int(low), int(high)


def committed_of(
    consumer: Consumer,
    places: list[TopicPartition],
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> list[TopicPartition]:
    """The group's offsets of `places`, below 0 where nothing was committed. Raises as `answered` does."""
    return answered(
        lambda timeout_s: without_errors(consumer.committed(places, timeout=timeout_s)),
        within_s,
        clock=clock,
        pause=pause,
    )


def without_errors(places: list[TopicPartition]) -> list[TopicPartition]:
    """`places`, an answer that has an error of its own for each partition. Raises the first one as `KafkaException`.

    For use inside a question: an offset beside an error means nothing.
    """
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places
