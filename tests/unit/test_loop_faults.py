from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.rig import ROUTING, Rig, event, key
from tests.helpers.turns import (
    LateFraming,
    Stubborn,
    late_event,
    latest,
    letters,
    made,
    not_ready,
    places,
    send,
    step,
)
from worker.deadline import Deadline
from worker.errors import AbortableError, EngineError, FatalDeliveryError
from worker.loop import FAILURES_IN_A_ROW
from worker.records import Reason

# -- schemas that can't be had ----------------------------------------------------------------------------------------


def waiting() -> tuple[Rig, LateFraming]:
    """Partition 0 has an event among others whose schema can't be had; partition 1 has none."""
    framing = LateFraming()
    rig = made(framing=framing)
    send(rig, 1)
    rig.broker.append(0, key("late"), late_event("late"))
    send(rig, 2)
    send(rig, 2, partition=1)
    step(rig, 0.1, times=8)
    return rig, framing


def test_only_the_partition_that_waits_for_a_schema_is_held() -> None:
    rig, _ = waiting()
    assert rig.source.held == {0}
    assert rig.broker.committed == {0: 1, 1: 2}
    assert places(rig) == [(0, 0), (1, 0), (1, 1)]
    send(rig, 4, partition=1)
    step(rig, 0.1, times=8)
    assert rig.broker.committed == {0: 1, 1: 6}
    assert letters(rig) == []


def test_the_registry_is_asked_again_when_the_time_has_come_and_not_before() -> None:
    rig, framing = waiting()
    assert framing.asked == 1
    step(rig, 0.1, times=10)
    assert framing.asked == 1
    step(rig, 0.3)
    assert framing.asked == 2
    assert rig.source.held == {0}


def test_once_the_schema_is_there_the_partition_goes_on_in_order_and_exactly_once() -> None:
    rig, framing = waiting()
    framing.there = True
    rig.settle()
    assert [place for place in places(rig) if place[0] == 0] == [(0, offset) for offset in range(4)]
    assert set(rig.outcomes().values()) == {1}
    assert rig.source.held == frozenset()
    assert latest(rig).not_ready == ()


def test_waiting_for_a_schema_makes_the_worker_unready_and_says_which_partitions() -> None:
    rig, _ = waiting()
    assert rig.worker.statistics.not_ready == ("partitions [0] wait for a writer schema; is the registry reachable?",)


# -- forecasts that may not leave -------------------------------------------------------------------------------------


def test_a_bad_forecast_is_a_dead_letter_and_the_rest_is_published() -> None:
    rig = made()
    for number, first in enumerate((1.0, -5.0, 2.0)):
        rig.broker.append(0, key(f"sku{number}"), event(f"sku{number}", (first, 0.0, 0.0)))
    rig.settle()
    assert places(rig) == [(0, 0), (0, 2)]
    (letter,) = letters(rig)
    assert (letter["reason"], letter["offset"], letter["key"]) == (Reason.BAD_FORECAST, 1, key("sku1"))
    assert "not_finite" in str(letter["detail"])
    assert latest(rig).rejections[Reason.BAD_FORECAST] == 1


# -- rebalances -------------------------------------------------------------------------------------------------------


def test_revoked_partitions_are_finished_and_committed_within_the_callback() -> None:
    rig = made()
    send(rig, 2)
    send(rig, 1, partition=1)
    step(rig)
    assert rig.broker.committed == {}
    rig.source.revoke(1)
    step(rig)
    assert rig.broker.committed == {0: 2, 1: 1}
    assert rig.source.assigned == {0}


def test_a_revoke_that_overruns_its_budget_aborts_and_reads_again() -> None:
    rig = made(asynchronous=True)
    send(rig, 4)
    send(rig, 4, partition=1)
    step(rig, times=2)
    rig.engine.finish(1)
    step(rig)
    assert rig.delivery.is_open
    rig.source.revoke(1)
    step(rig)
    assert (rig.delivery.aborted, rig.broker.commits) == (1, 0)
    assert rig.source.assigned == {0}
    rig.source.assign(1)
    rig.settle()
    assert sorted(rig.outcomes().items()) == [((p, offset), 1) for p in (0, 1) for offset in range(4)]


def test_lost_partitions_are_never_committed() -> None:
    rig = made()
    send(rig, 2)
    send(rig, 2, partition=1)
    step(rig)
    step(rig)
    assert rig.delivery.is_open
    rig.source.lose(1)
    step(rig)
    assert (rig.delivery.aborted, rig.broker.commits) == (1, 0)
    step(rig, 0.3, times=8)
    assert rig.broker.committed == {0: 2}
    assert places(rig) == [(0, 0), (0, 1)]


def test_partition_counts_are_asked_for_again_after_an_assignment() -> None:
    rig = made(partitions=3)
    rig.source.revoke(2)
    send(rig, 1)
    rig.settle()
    rig.routing = replace(ROUTING, same_partitions=False)
    send(rig, 1)
    rig.settle()
    rig.source.assign(2)
    send(rig, 1)
    rig.settle()
    assert [message.partition for message in rig.broker.published] == [0, 0, None]


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["produce", "commit"])
def test_an_aborted_transaction_is_read_again_and_nothing_comes_twice(call: str) -> None:
    rig = made()
    send(rig, 4)
    rig.delivery.fail_next[call] = AbortableError("refused")
    rig.settle()
    assert rig.delivery.aborted == 1
    assert set(rig.outcomes().values()) == {1}
    assert latest(rig).transactions == {"committed": 1, "aborted": 1}


def test_what_keeps_failing_makes_the_worker_unready_until_a_commit_succeeds() -> None:
    rig = made()
    send(rig, 4)
    rig.delivery.fail_next = Stubborn(commit=AbortableError("too large"))
    while rig.delivery.aborted < FAILURES_IN_A_ROW - 1:
        step(rig, 0.3)
    assert not_ready(rig) == []
    while rig.delivery.aborted < FAILURES_IN_A_ROW:
        step(rig, 0.3)
    (reason,) = not_ready(rig)
    assert "transactions were aborted, the last one because: too large" in reason
    rig.delivery.fail_next.clear()
    rig.settle()
    assert latest(rig).ready


@pytest.mark.parametrize("where", ["fail_submit", "fail_collect"])
def test_an_engine_error_leaves_the_step_and_abandoning_leaves_nothing_open(where: str) -> None:
    rig = made()
    send(rig, 4)
    step(rig, times=2)
    assert rig.delivery.is_open
    getattr(rig.engine, where).extend(EngineError("row 3") for _ in range(9))
    send(rig, 4)
    with pytest.raises(EngineError, match="row 3"):
        step(rig, times=2)
    rig.worker.abandon()
    assert (rig.delivery.is_open, rig.delivery.aborted) == (False, 1)
    assert (rig.broker.published, rig.broker.committed) == ([], {})
    rig.restart()
    rig.source.assign(0, 1)
    rig.settle()
    assert set(rig.outcomes().values()) == {1}


def test_abandoning_what_cannot_be_aborted_is_left_to_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = made()
    send(rig, 4)
    step(rig, times=2)

    def fail(_: Deadline) -> None:
        raise FatalDeliveryError("fenced")

    monkeypatch.setattr(rig.delivery, "abort", fail)
    rig.worker.abandon()
    assert rig.delivery.is_open


# -- draining ---------------------------------------------------------------------------------------------------------


def test_draining_finishes_and_commits_everything_polled() -> None:
    rig = made()
    send(rig, 6)
    step(rig)
    step(rig)
    rig.worker.drain(Deadline.after(5.0, rig.clock))
    assert rig.broker.committed == {0: 6}
    assert places(rig) == [(0, offset) for offset in range(6)]
    assert rig.worker.statistics.forecasts == 6
    assert rig.worker.statistics.batches["stop"] == 1


def test_draining_gives_up_at_its_deadline_and_leaves_the_rest_to_the_next_worker() -> None:
    rig = made(asynchronous=True)
    send(rig, 8)
    step(rig, times=2)
    rig.engine.finish(1)
    step(rig)
    rig.worker.drain(Deadline.after(0.0, rig.clock))
    assert (rig.delivery.aborted, rig.delivery.is_open) == (1, False)
    assert (rig.broker.committed, rig.broker.published) == ({}, [])
    assert rig.engine.outstanding == 0
    rig.asynchronous = False
    rig.restart()
    rig.source.assign(0, 1)
    rig.settle()
    assert set(rig.outcomes().values()) == {1}


def test_draining_an_idle_worker_commits_nothing() -> None:
    rig = made()
    step(rig)
    rig.worker.drain(Deadline.after(5.0, rig.clock))
    assert rig.broker.commits == 0
