"""Follows the live topic for a replay that writes there: committed records, from the beginning to what is visible now.

It is looked at before every batch is produced and before every commit. `replay_fresher.py` says what follows from what was
seen. One thread uses it, the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from worker.deadline import Clock, Deadline
from worker.errors import FatalDeliveryError
from worker.headers import headers_of
from worker.replay_fresher import Fresher, Live
from worker.replay_offsets import offsets_of
from worker.source_errors import check

READ_RECORDS: Final = 5000
FIRST_READ_S: Final = 1800.0


class LiveTable:
    """Reads the live topic into a `Fresher`. Making it reads the whole topic, which takes its time.

    Args:
        consumer: read_committed, with `enable.partition.eof`; its own from here on.
        admin: asks for the ends.
        topic: the live forecasts.
        partitions: how many it has.
        as_of: the day in a value; may raise `ValueError`.
        fresher: is told.
        clock: monotonic.

    Raises `FatalDeliveryError` if the topic can't be read to its end, or holds something that isn't a forecast.
    """

    def __init__(
        self,
        consumer: Consumer,
        admin: AdminClient,
        topic: str,
        partitions: int,
        *,
        as_of: Callable[[bytes], int],
        fresher: Fresher,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._admin = admin
        self._places = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)]
        self._topic = topic
        self._as_of = as_of
        self._fresher = fresher
        self._clock = clock
        self._reached = dict.fromkeys(range(partitions), 0)
        self._consumer.assign(self._places)
        self._read_up_to(self._visible_ends(), Deadline.after(FIRST_READ_S, clock))

    def look(self, deadline: Deadline) -> None:
        """Read what is visible now."""
        self._read_up_to(self._visible_ends(), deadline)

    def settle(self, deadline: Deadline) -> None:
        """Read everything that lies on the topic now, also behind transactions that are still open: waits for their end."""
        found = offsets_of(self._admin, self._topic, list(self._reached), "end")
        ends = {partition: offset for partition, (offset, _) in found.items()}
        self._read_up_to(ends, deadline)

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _read_up_to(self, ends: Mapping[int, int], deadline: Deadline) -> None:
        while any(self._reached[partition] < end for partition, end in ends.items()):
            if deadline.expired:
                raise FatalDeliveryError(
                    f"reading {self._topic}: got to {self._reached}, expected {dict(ends)}; another transaction may be open "
                    "there for long. Run the same command again"
                )
            for message in self._consumer.consume(READ_RECORDS, 0.02):
                self._take(message)
            for place in self._consumer.position(self._places):
                if place.offset is not None and place.offset >= 0:  # markers count, though nobody delivers them
                    self._reached[place.partition] = max(self._reached[place.partition], place.offset)

    def _visible_ends(self) -> Mapping[int, int]:
        """The last stable offsets, in one request for all partitions."""
        found = offsets_of(self._admin, self._topic, list(self._reached), "stable")
        return {partition: offset for partition, (offset, _) in found.items()}

    def _take(self, message: Message) -> None:
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes start so
                self._reached[partition] = max(self._reached[partition], offset)
            else:
                check(error)
            return
        key, value = message.key(), message.value()
        if key is None:
            return
        try:
            as_of = None if value is None else self._as_of(bytes(value))
        except ValueError as problem:
            raise FatalDeliveryError(f"{self._topic}[{partition}] at offset {offset}: {problem}") from problem
        value = None if value is None else bytes(value)
        key = bytes(key)
        headers = (
            headers_of(message) if self._fresher.may_bury(key) else ()
        )  # making them costs as much as all the rest
        self._fresher.saw(key, Live(as_of, message.timestamp()[1], partition, value, headers))
