from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import HealthCheck, settings

from tests.helpers.asking import ask
from tests.helpers.child import Child
from tests.helpers.waiting import slowdown, wait_until


@pytest.fixture(scope="module", autouse=True)
def setting_of_whoever_runs_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORECAST_WORKER__LOG__LEVEL", "debug")
        yield


def test_settings_in_the_environment_do_not_reach_a_test() -> None:
    assert [name for name in os.environ if name.startswith("FORECAST_WORKER")] == []


def test_hypothesis_gives_the_same_examples_each_time_however_long_they_take() -> None:
    profile = settings()
    assert profile.derandomize
    assert profile.deadline is None
    assert HealthCheck.too_slow in profile.suppress_health_check


def test_waiting_ends_with_the_condition_or_says_what_did_not_happen() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), "the third answer")
    assert next(answers, None) is None
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the impossible"):
        wait_until(lambda: False, "the impossible", timeout_s=0.05)


def test_nothing_is_faster_than_with_a_processor_of_its_own() -> None:
    assert slowdown() >= 1.0


@pytest.fixture
def asked() -> list[int]:
    return []


@pytest.mark.parametrize("passing", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._TIMED_OUT])
def test_a_question_is_asked_again_while_the_error_passes(asked: list[int], passing: int) -> None:
    def question() -> int:
        asked.append(passing)
        if len(asked) < 3:
            raise KafkaException(KafkaError(passing))
        return 7

    assert ask(question, "seven") == 7
    assert len(asked) == 3


def test_a_question_ends_with_the_time_or_with_an_error_that_stays(asked: list[int]) -> None:
    def question(code: int) -> int:
        asked.append(code)
        raise KafkaException(KafkaError(code))

    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        ask(lambda: question(KafkaError.TOPIC_AUTHORIZATION_FAILED), "seven")
    assert len(asked) == 1
    with pytest.raises(AssertionError, match=r"not within 0 s: seven: .*NOT_LEADER"):
        ask(lambda: question(KafkaError.NOT_LEADER_FOR_PARTITION), "seven", timeout_s=0.0)


def test_a_process_ends_with_its_block_and_leaves_no_file() -> None:
    script = "import sys, time; print('said'); print('logged', file=sys.stderr, flush=True); time.sleep(600)"
    with Child([sys.executable, "-u", "-c", script]) as child:
        child.wait_until(lambda: "logged" in child.log, "it says something")
        assert child.output == "said\n"
        place = child._place
        assert place.is_dir()
        with pytest.raises(AssertionError, match=r"(?s)not within 0\.05 s: pigs fly.*logged"):
            child.wait_until(lambda: False, "pigs fly", timeout_s=0.05)
    assert child.poll() == -signal.SIGKILL
    assert not place.exists()


def test_a_process_ends_also_when_the_test_fails() -> None:
    child = Child([sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(AssertionError, match="half-way"), child:
        raise AssertionError("half-way")
    assert child.poll() == -signal.SIGKILL
    assert not child._place.exists()


def test_a_process_that_ends_is_not_waited_for() -> None:
    with Child([sys.executable, "-c", "import sys; sys.exit('no way')"]) as child:
        with pytest.raises(AssertionError, match=r"(?s)it ended before: it speaks.*no way"):
            child.wait_until(lambda: "yes" in child.output, "it speaks")
        assert child.wait() == 1
