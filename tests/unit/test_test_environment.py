from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module", autouse=True)
def setting_of_whoever_runs_the_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORECAST_WORKER__LOG__LEVEL", "debug")
        yield


def test_settings_in_the_environment_do_not_reach_a_test() -> None:
    assert [name for name in os.environ if name.startswith("FORECAST_WORKER")] == []


def test_hypothesis_gives_the_same_examples_each_time() -> None:
    profile = settings()
    assert profile.derandomize
    assert profile.deadline is None


def test_waiting_ends_with_the_condition_or_says_what_did_not_happen() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), "the third answer")
    assert next(answers, None) is None
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the impossible"):
        wait_until(lambda: False, "the impossible", timeout_s=0.05)
