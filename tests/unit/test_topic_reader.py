"""The reader's clock, without a broker; how it reads is in tests/integration/test_topic_reader.py."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from schemas.asking import UNKNOWN_S
from tests.helpers.clock import ManualClock
from tests.helpers.questions import Answers, Asked, place, refused, topic_of
from worker.errors import UnreachableError
from worker.records import Span
from worker.topic_reader import QUESTION_TIMEOUT_S, STALL_S, TopicReader


class FakeMessage:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> None:
        return None


class FakeConsumer:
    """Gives one batch after the other, then nothing; each call takes 10 s."""

    def __init__(self, clock: ManualClock, *batches: list[int]) -> None:
        self._clock = clock
        self._batches = list(batches)
        self.is_assigned = False

    def assign(self, places: object) -> None:  # noqa: ARG002
        self.is_assigned = True

    def unassign(self) -> None:
        self.is_assigned = False

    def resume(self, places: object) -> None:
        pass

    def pause(self, places: object) -> None:
        pass

    def consume(self, count: int, timeout_s: float) -> list[FakeMessage]:  # noqa: ARG002
        self._clock.advance(10.0)
        return [FakeMessage(offset) for offset in self._batches.pop(0)] if self._batches else []


def reader(clock: ManualClock, *batches: list[int]) -> TopicReader:
    consumer: Any = FakeConsumer(clock, *batches)
    return TopicReader(consumer, "t", clock=clock)


def test_time_that_the_caller_takes_is_not_the_brokers() -> None:
    clock = ManualClock()
    found = []
    for record in reader(clock, [0, 1], [], [2], [3]).read({0: Span(0, 3)}):
        clock.advance(2 * STALL_S)
        found.append(record.offset)
    assert found == [0, 1, 2]


def test_a_broker_that_sends_nothing_is_unreachable() -> None:
    clock = ManualClock()
    records = reader(clock, [0]).read({0: Span(0, 3)})
    assert next(records).offset == 0
    with pytest.raises(UnreachableError, match=r"nothing came for 60 s, and partitions \[0\]"):
        next(records)


# -- questions that are answered wrongly for a moment ------------------------------------------------------------------


def asking(**answers: Answers) -> tuple[TopicReader, ManualClock]:
    clock = ManualClock()
    consumer: Any = Asked(list_topics=answers.pop("list_topics", Answers(topic_of())), **answers)
    return TopicReader(consumer, "in", clock=clock, pause=clock.advance), clock


def test_a_leader_that_moves_is_asked_again_for_its_ends() -> None:
    moving = refused(KafkaError.NOT_LEADER_FOR_PARTITION)
    made, _ = asking(get_watermark_offsets=Answers(moving, (0, 4), refused(KafkaError.UNKNOWN_TOPIC_OR_PART), (1, 5)))
    assert made.spans() == {0: Span(0, 4), 1: Span(1, 5)}


def test_a_leader_that_never_comes_is_said_with_the_question() -> None:
    made, clock = asking(get_watermark_offsets=Answers(refused(KafkaError.LEADER_NOT_AVAILABLE)))
    with pytest.raises(UnreachableError, match="topic in: asking for first and last offsets: reason 5"):
        made.spans()
    assert clock() == pytest.approx(1000 + QUESTION_TIMEOUT_S)


def test_a_topic_that_is_not_there_is_said_with_the_remedy() -> None:
    made, clock = asking(list_topics=Answers(topic_of(error=KafkaError.UNKNOWN_TOPIC_OR_PART)))
    with pytest.raises(UnreachableError, match="topic in: reason 3; correct the name, or create the topic"):
        made.partitions()
    assert clock() == pytest.approx(1000 + UNKNOWN_S)


def test_no_broker_is_said_with_the_remedy() -> None:
    made, _ = asking(list_topics=Answers(refused(KafkaError._TRANSPORT)))
    with pytest.raises(UnreachableError, match=r"asking for the partitions: .*; check kafka\.bootstrap\.servers"):
        made.partitions()


def test_a_partition_that_could_not_tell_is_not_one_without_younger_records() -> None:
    """An error beside an offset used to be taken for "nothing so young", and all records of the partition were left out."""
    ends = Answers((0, 10))
    moving = [place(0, 3), place(1, -1, error=KafkaError.NOT_LEADER_FOR_PARTITION)]
    made, _ = asking(get_watermark_offsets=ends, offsets_for_times=Answers(moving, [place(0, 3), place(1, 4)]))
    assert made.spans_between(500, None) == {0: Span(3, 10), 1: Span(4, 10)}


def test_a_time_that_nobody_can_tell_is_an_error() -> None:
    refusal = [place(0, -1, error=KafkaError.TOPIC_AUTHORIZATION_FAILED)]
    made, _ = asking(get_watermark_offsets=Answers((0, 10)), offsets_for_times=Answers(refusal))
    with pytest.raises(UnreachableError, match="asking for offsets by time: reason 29"):
        made.spans_between(500, None)
