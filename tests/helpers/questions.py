"""A broker that answers questions wrongly for a while: each question takes its next answer from a list, the last one for ever."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.helpers.confluent import TOPIC


class Answers:
    """Gives or raises its answers one after the other, the last one again and again. `asked`: the timeouts, seconds."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[float] = []

    def __call__(self, timeout_s: float) -> Any:
        self.asked.append(timeout_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def refused(code: int) -> KafkaException:
    """What a question raises."""
    return KafkaException(KafkaError(code, f"reason {code}"))


def topic_of(
    partitions: Sequence[int] = (0, 1), *, error: int | None = None, replicas: int = 1, topic: str = TOPIC
) -> Any:
    """`list_topics`' answer: one topic, or what is wrong with it."""
    found = SimpleNamespace(
        error=None if error is None else KafkaError(error, f"reason {error}"),
        partitions={number: SimpleNamespace(replicas=[0] * replicas, leader=0) for number in partitions},
    )
    return SimpleNamespace(topics={topic: found})


class Asked:
    """A client whose questions are answered by `Answers`, by the method's name."""

    def __init__(self, **answers: Answers) -> None:
        self._answers = answers

    def list_topics(self, topic: str = TOPIC, timeout: float = -1.0) -> Any:  # noqa: ARG002
        return self._answers["list_topics"](timeout)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:  # noqa: ARG002
        found: tuple[int, int] = self._answers["get_watermark_offsets"](timeout)
        return found

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        found: list[TopicPartition] = self._answers["offsets_for_times"](timeout)
        return found

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        found: list[TopicPartition] = self._answers["committed"](timeout)
        return found


def place(partition: int, offset: int, *, error: int | None = None) -> Any:
    """A `TopicPartition` of an answer; confluent_kafka's own can't be given an error."""
    return SimpleNamespace(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        metadata=None,
        error=None if error is None else KafkaError(error, f"reason {error}"),
    )
