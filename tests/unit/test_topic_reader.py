"""The reader's clock, without a broker; how it reads is in tests/integration/test_topic_reader.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.clock import ManualClock
from worker.errors import UnreachableError
from worker.records import Span
from worker.topic_reader import STALL_S, TopicReader


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
