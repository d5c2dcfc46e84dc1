"""A consumer on a log with holes, as librdkafka behaves on one: markers move its position, but aren't delivered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, Message, TopicPartition

from tests.helpers.confluent import TOPIC, FakeMessage


class LogConsumer:
    """Partitions with records at some offsets, each up to an end. Assigned by hand; a seek or an assignment forgets
    the position. `low`: the oldest offset that is left."""

    def __init__(self, records: Mapping[int, Sequence[int]], ends: Mapping[int, int]) -> None:
        self.records = records
        self.ends = dict(ends)
        self.low: dict[int, int] = {}
        self.stored: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._position: dict[int, int] = {}
        self._told_end: set[int] = set()
        self._paused: set[int] = set()

    @property
    def as_consumer(self) -> Consumer:
        return cast(Consumer, self)

    def assign(self, places: Iterable[TopicPartition]) -> None:
        self._next = {
            place.partition: self.low.get(place.partition, 0) if place.offset == OFFSET_BEGINNING else int(place.offset)
            for place in places
        }
        self._position, self._told_end = {}, set()

    def seek(self, place: TopicPartition) -> None:
        assert place.partition in self._next
        self._next[place.partition] = int(place.offset)
        self._position.pop(place.partition, None)
        self._told_end.discard(place.partition)

    def pause(self, places: Iterable[TopicPartition]) -> None:
        self._paused |= {place.partition for place in places}

    def resume(self, places: Iterable[TopicPartition]) -> None:
        self._paused -= {place.partition for place in places}

    def arrived(self, partition: int) -> None:
        """The log has grown; the new end will be told."""
        self._told_end.discard(partition)

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        return [TopicPartition(TOPIC, place.partition, self.stored[place.partition]) for place in places]

    def position(self, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        found = {place.partition: self._position.get(place.partition, OFFSET_INVALID) for place in places}
        return [TopicPartition(TOPIC, partition, offset) for partition, offset in found.items()]

    def consume(self, num_messages: int, timeout: float) -> list[Message]:  # noqa: ARG002
        found: list[FakeMessage] = []
        for partition in sorted(self._next.keys() - self._paused):
            if self._next[partition] < self.low.get(partition, 0):
                found.append(FakeMessage(partition, 0, error=_error(KafkaError._AUTO_OFFSET_RESET)))
                continue
            for offset in self.records[partition]:
                if len(found) >= num_messages:
                    return cast(list[Message], found)
                if self._next[partition] <= offset < self.ends[partition]:
                    found.append(FakeMessage(partition, offset))
                    self._next[partition] = self._position[partition] = offset + 1
            if self.records[partition] and self._next[partition] < self.ends[partition]:
                self._position[partition] = self.ends[partition]  # behind the markers
            self._next[partition] = self.ends[partition]
            if partition not in self._told_end and len(found) < num_messages:
                self._told_end.add(partition)
                found.append(FakeMessage(partition, self.ends[partition], error=_error(KafkaError._PARTITION_EOF)))
        return cast(list[Message], found)

    def consumer_group_metadata(self) -> object:
        return "metadata"

    def close(self) -> None:
        self._next = {}


def _error(code: int) -> KafkaError:
    return KafkaError(code, "said so")
