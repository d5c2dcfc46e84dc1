"""The two clients of a fleet as scripts: what lies on the control topic, and what happens to what is sent."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.helpers.questions import Answers, topic_of
from worker.control import Command, encode_command

CONTROL = "model-control"


def message(key: bytes | None, value: bytes | None, partition: int = 0) -> Any:
    """A message as the client gives it."""
    return SimpleNamespace(error=lambda: None, key=lambda: key, value=lambda: value, partition=lambda: partition)


def said(command: Command) -> Any:
    """The message of `command`."""
    return message(command.key, encode_command(command))


def trouble(code: int, partition: int | None = 0) -> Any:
    """An error in the place of a message."""
    error = KafkaError(code, f"reason {code}")
    return SimpleNamespace(error=lambda: error, key=lambda: None, value=lambda: None, partition=lambda: partition)


def end(partition: int = 0) -> Any:
    """The end of a partition was reached."""
    return trouble(KafkaError._PARTITION_EOF, partition)


class ControlConsumer:
    """Gives what is in `coming`, a batch for each call, then nothing. `idle` is called for each call without one."""

    def __init__(self, *coming: list[Any], partitions: int = 1) -> None:
        self.coming = list(coming)
        self.topics = Answers(topic_of(range(partitions), topic=CONTROL))
        self.assigned: list[tuple[str, int, int]] = []
        self.closed = 0
        self.idle: Callable[[float], None] = lambda _: None

    @property
    def as_consumer(self) -> Consumer:
        return cast(Consumer, self)

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002
        return self.topics(timeout)

    def assign(self, places: list[TopicPartition]) -> None:
        assert all(place.offset == OFFSET_BEGINNING for place in places)
        self.assigned = [(place.topic, place.partition, place.offset) for place in places]

    def consume(self, num_messages: int, timeout: float) -> list[Any]:  # noqa: ARG002
        if self.coming:
            return self.coming.pop(0)
        self.idle(timeout)
        return []

    def close(self) -> None:
        self.closed += 1


class ControlProducer:
    """Keeps what was sent until `poll` or `flush`, when it is delivered, or lost with the next of `losses`.

    full: so many next calls of `produce` find no room.
    """

    def __init__(self) -> None:
        self.losses: list[int] = []
        self.full = 0
        self.stays = 0
        self.delivered: list[tuple[str, bytes, bytes | None]] = []
        self._queue: list[tuple[str, bytes, bytes | None, Any]] = []

    @property
    def as_producer(self) -> Producer:
        return cast(Producer, self)

    def produce(self, topic: str, *, key: bytes, value: bytes | None, on_delivery: Any) -> None:
        if self.full:
            self.full -= 1
            raise BufferError("Local: Queue full")
        self._queue.append((topic, key, value, on_delivery))

    def poll(self, timeout: float) -> int:
        assert timeout == 0
        return self._deliver()

    def flush(self, timeout: float) -> int:
        assert timeout > 0
        self._deliver()
        return self.stays

    def _deliver(self) -> int:
        queue, self._queue = self._queue, []
        for topic, key, value, on_delivery in queue:
            error = KafkaError(self.losses.pop(0), "lost") if self.losses else None
            if error is None:
                self.delivered.append((topic, key, value))
            on_delivery(error, cast(Message, None))
        return len(queue)
