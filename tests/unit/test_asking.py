"""A question is asked again while the answer passes by itself, within the time of its caller, and no longer."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.asking import (
    LEAST_S,
    MOVING,
    UNKNOWN,
    UNKNOWN_S,
    answered,
    committed_of,
    ends_of,
    partitions_of,
    without_errors,
)
from tests.helpers.clock import ManualClock
from tests.helpers.confluent import TOPIC
from tests.helpers.questions import Answers, Asked, place, refused, topic_of

WITHIN_S = 10.0


class Bench:
    """Time passes only while it is waited."""

    def __init__(self) -> None:
        self.clock = ManualClock()

    def ask(self, answers: Answers, within_s: float = WITHIN_S) -> Any:
        return answered(answers, within_s, clock=self.clock, pause=self.clock.advance)

    @property
    def took_s(self) -> float:
        return self.clock() - 1000.0

    @property
    def timing(self) -> Any:
        return {"clock": self.clock, "pause": self.clock.advance}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def code_of(raised: pytest.ExceptionInfo[KafkaException]) -> int:
    return int(raised.value.args[0].code())


@pytest.mark.parametrize("code", sorted(MOVING | UNKNOWN))
def test_what_passes_is_asked_again_with_the_time_that_is_left(bench: Bench, code: int) -> None:
    answers = Answers(refused(code), refused(code), "answer")
    assert bench.ask(answers) == "answer"
    assert answers.asked == pytest.approx([WITHIN_S, WITHIN_S - 0.05, WITHIN_S - 0.1])


@pytest.mark.parametrize("code", sorted(MOVING))
def test_what_never_settles_is_given_up_in_time(bench: Bench, code: int) -> None:
    answers = Answers(refused(code))
    with pytest.raises(KafkaException) as raised:
        bench.ask(answers)
    assert code_of(raised) == code
    assert bench.took_s == pytest.approx(WITHIN_S)
    assert min(answers.asked) == LEAST_S


@pytest.mark.parametrize("code", sorted(UNKNOWN))
def test_a_topic_that_stays_unknown_does_not_exist(bench: Bench, code: int) -> None:
    with pytest.raises(KafkaException):
        bench.ask(Answers(refused(code)))
    assert bench.took_s == pytest.approx(UNKNOWN_S)


def test_a_caller_with_less_time_than_that_waits_no_longer(bench: Bench) -> None:
    with pytest.raises(KafkaException):
        bench.ask(Answers(refused(KafkaError.UNKNOWN_TOPIC_OR_PART)), within_s=1.0)
    assert bench.took_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    "code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.UNKNOWN]
)
def test_anything_else_is_raised_at_once(bench: Bench, code: int) -> None:
    answers = Answers(refused(code), "answer")
    with pytest.raises(KafkaException) as raised:
        bench.ask(answers)
    assert (code_of(raised), len(answers.asked), bench.took_s) == (code, 1, 0.0)


def test_a_future_that_gives_up_before_its_request_is_a_question_without_an_answer(bench: Bench) -> None:
    asked = []

    def ask(timeout_s: float) -> str:
        asked.append(timeout_s)
        if len(asked) < 3:
            raise TimeoutError
        return "answer"

    assert answered(ask, WITHIN_S, clock=bench.clock, pause=bench.clock.advance) == "answer"

    def never(timeout_s: float) -> str:
        bench.clock.advance(timeout_s)
        raise TimeoutError

    with pytest.raises(KafkaException) as raised:
        answered(never, WITHIN_S, clock=bench.clock, pause=bench.clock.advance)
    assert code_of(raised) == KafkaError._TIMED_OUT
    assert raised.value.__cause__ is not None


def test_other_exceptions_are_not_ours(bench: Bench) -> None:
    with pytest.raises(KeyError):
        bench.ask(Answers(KeyError("x"), "answer"))


def test_a_topic_that_was_just_made_is_waited_for(bench: Bench) -> None:
    answers = Answers(
        topic_of(error=KafkaError.UNKNOWN_TOPIC_OR_PART),
        topic_of(error=KafkaError.LEADER_NOT_AVAILABLE),
        topic_of(()),
        topic_of((1, 0), replicas=3),
    )
    assert list(partitions_of(Asked(list_topics=answers), TOPIC, WITHIN_S, **bench.timing).items()) == [(0, 3), (1, 3)]


def test_a_topic_that_is_not_there_is_told_by_its_error(bench: Bench) -> None:
    answers = Answers(topic_of(error=KafkaError.UNKNOWN_TOPIC_OR_PART))
    with pytest.raises(KafkaException) as raised:
        partitions_of(Asked(list_topics=answers), TOPIC, WITHIN_S, **bench.timing)
    assert code_of(raised) in UNKNOWN


def test_ends_are_asked_again_while_the_leader_moves(bench: Bench) -> None:
    answers = Answers(refused(KafkaError.NOT_LEADER_FOR_PARTITION), refused(KafkaError.UNKNOWN_TOPIC_OR_PART), (3, 9))
    assert ends_of(Asked(get_watermark_offsets=answers), TOPIC, 1, WITHIN_S, **bench.timing) == (3, 9)


def test_an_offset_beside_an_error_means_nothing(bench: Bench) -> None:
    moving = place(1, 7, error=KafkaError.NOT_COORDINATOR)
    answers = Answers([place(0, 5), moving], [place(0, 5), place(1, 8)])
    client: Any = Asked(committed=answers)
    found = committed_of(client, [], WITHIN_S, **bench.timing)
    assert [each.offset for each in found] == [5, 8]


def test_the_first_error_of_an_answer_is_raised() -> None:
    with pytest.raises(KafkaException, match="reason 6"):
        without_errors([place(0, 1), place(1, 2, error=6), place(2, 3, error=7)])
    places = [place(0, 1)]
    assert without_errors(places) is places


def test_no_code_both_moves_and_is_unknown() -> None:
    assert not MOVING & UNKNOWN
