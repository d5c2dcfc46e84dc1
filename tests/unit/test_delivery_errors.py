from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from tests.helpers.confluent import kafka_error
from worker.delivery_errors import FENCED, PASSING, REGROUPED, classify, flagged
from worker.errors import AbortableError, FatalDeliveryError, FencedError


def test_a_retriable_error_is_no_exception() -> None:
    assert classify(kafka_error(retriable=True), "committing") is None


def test_abort_comes_before_retry() -> None:
    assert type(classify(kafka_error(retriable=True, abortable=True), "committing")) is AbortableError


def test_fatal_comes_before_all() -> None:
    assert type(classify(kafka_error(fatal=True, retriable=True, abortable=True), "x")) is FatalDeliveryError


@pytest.mark.parametrize("code", sorted(FENCED))
def test_fenced_is_fatal_and_says_who(code: int) -> None:
    error = classify(kafka_error(code, fatal=True), "committing")
    assert type(error) is FencedError
    assert "delivery.transactional_id" in str(error)


def test_what_nobody_knows_is_fatal() -> None:
    error = classify(kafka_error(KafkaError.UNKNOWN), "committing")
    assert type(error) is FatalDeliveryError
    assert (
        str(error)
        == f"committing: reason -1 ({kafka_error(-1).name()}). Not known to be harmless, so it counts as fatal."
    )


@pytest.mark.parametrize("code", sorted(PASSING))
def test_an_offset_commits_error_that_passes_is_retriable(code: int) -> None:
    assert classify(flagged(kafka_error(code)), "committing offsets") is None


@pytest.mark.parametrize("code", sorted(REGROUPED))
def test_an_offset_commit_that_came_too_late_is_abortable(code: int) -> None:
    assert type(classify(flagged(kafka_error(code)), "committing offsets")) is AbortableError


@pytest.mark.parametrize("code", sorted(FENCED))
def test_an_offset_commit_of_a_member_that_was_replaced_is_fenced(code: int) -> None:
    assert type(classify(flagged(kafka_error(code)), "committing offsets")) is FencedError


def test_any_other_error_of_an_offset_commit_is_fatal_and_keeps_its_words() -> None:
    error = flagged(kafka_error(KafkaError.OFFSET_METADATA_TOO_LARGE))
    assert (error.retriable(), error.txn_requires_abort(), error.fatal()) == (False, False, False)
    assert "reason 12" in str(classify(error, "committing offsets"))


def test_what_was_fatal_stays_fatal() -> None:
    assert flagged(kafka_error(KafkaError.UNKNOWN, fatal=True)).fatal()


def test_no_code_has_two_meanings() -> None:
    assert not FENCED & PASSING
    assert not FENCED & REGROUPED
    assert not PASSING & REGROUPED
