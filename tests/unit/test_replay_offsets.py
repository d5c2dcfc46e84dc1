"""Asking for offsets while leaders move; that the answers are right is in tests/integration/test_replay.py."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from confluent_kafka import IsolationLevel, KafkaError, TopicPartition

from tests.helpers.clock import ManualClock
from tests.helpers.questions import refused
from worker.errors import UnreachableError
from worker.replay_offsets import TIMEOUT_S, offsets_of

At = Literal["earliest", "stable", "end"] | int


class Admin:
    """Answers each partition with the next of its answers, the last one for ever."""

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = {int(name.removeprefix("p")): given for name, given in answers.items()}
        self.asked: list[tuple[Any, IsolationLevel, float]] = []

    def list_offsets(
        self, requests: dict[TopicPartition, Any], isolation_level: IsolationLevel, request_timeout: float
    ) -> dict[TopicPartition, Future[Any]]:
        self.asked.append((next(iter(requests.values())), isolation_level, request_timeout))
        return {place: self._answer(place.partition) for place in requests}

    def _answer(self, partition: int) -> Future[Any]:
        given = self._answers[partition]
        answer = given.pop(0) if len(given) > 1 else given[0]
        future: Future[Any] = Future()
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(SimpleNamespace(offset=answer[0], timestamp=answer[1]))
        return future


def asked(admin: Any, at: At = "earliest") -> tuple[Any, ManualClock]:
    clock = ManualClock()
    return offsets_of(admin, "t", [0, 1], at, clock=clock, pause=clock.advance), clock


def test_each_partition_has_its_offset_and_time() -> None:
    found, clock = asked(Admin(p0=[(3, 500)], p1=[(-1, -1)]))
    assert (found, clock()) == ({0: (3, 500), 1: (-1, -1)}, 1000)


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_one_partition_without_an_answer_is_asked_again(code: int) -> None:
    admin = Admin(p0=[(3, 500)], p1=[refused(code), (7, 8)])
    assert asked(admin)[0] == {0: (3, 500), 1: (7, 8)}
    assert [timeout_s for _, _, timeout_s in admin.asked] == pytest.approx([TIMEOUT_S, TIMEOUT_S - 0.05])


def test_what_never_settles_is_said_with_the_remedy() -> None:
    admin = Admin(p0=[refused(KafkaError.LEADER_NOT_AVAILABLE)], p1=[(7, 8)])
    with pytest.raises(UnreachableError, match="asking for offsets of t: reason 5; are its leaders up"):
        asked(admin)
    assert admin.asked[-1][2] < 1.0


@pytest.mark.parametrize(
    ("at", "level"),
    [
        ("earliest", IsolationLevel.READ_COMMITTED),
        ("stable", IsolationLevel.READ_COMMITTED),
        ("end", IsolationLevel.READ_UNCOMMITTED),
        (500, IsolationLevel.READ_COMMITTED),
    ],
)
def test_only_the_very_end_counts_what_is_not_decided(at: At, level: IsolationLevel) -> None:
    admin = Admin(p0=[(1, 1)], p1=[(1, 1)])
    asked(admin, at)
    assert admin.asked[0][1] is level
