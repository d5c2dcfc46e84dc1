from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import ROUTING, Rig, event, key
from tests.helpers.turns import (
    latest,
    made,
    places,
    send,
    step,
    watched,
)
from worker.deadline import Deadline
from worker.errors import AbortableError
from worker.loop import PAUSE_AFTER_S
from worker.records import Reason
from worker.statistics import Stage

# -- overlap and batches ----------------------------------------------------------------------------------------------


def test_the_next_batch_is_handed_over_while_the_engine_computes() -> None:
    rig = made(asynchronous=True)
    send(rig, 8)
    step(rig, times=2)
    assert rig.engine.submitted_rows == [4, 4]
    assert (rig.engine.outstanding, rig.engine.blocked) == (2, 0)
    rig.engine.finish()
    step(rig)
    step(rig, 0.5)
    assert places(rig) == [(0, offset) for offset in range(8)]
    assert rig.engine.blocked == 0


def test_while_the_engine_computes_polls_are_short_and_batches_grow() -> None:
    rig = made(asynchronous=True)
    send(rig, 4)
    step(rig)
    assert rig.engine.outstanding == 1
    watched(rig).waits_s.clear()
    send(rig, 2)
    step(rig, 0.1)
    assert watched(rig).waits_s == [0.001]
    assert rig.engine.submitted_rows == [4]  # an idle engine would have had them after the linger
    step(rig, 0.51)
    assert rig.engine.submitted_rows == [4, 2]  # the oldest is due


def test_an_idle_worker_polls_as_long_as_it_may_and_opens_no_transaction() -> None:
    rig = made()
    step(rig, times=3)
    assert watched(rig).waits_s == [0.1] * 3
    assert not rig.delivery.is_open
    assert rig.broker.commits == 0


def test_an_idle_engine_waits_for_company_no_longer_than_the_linger() -> None:
    rig = made()
    send(rig)
    step(rig)
    assert rig.engine.submitted_rows == []
    step(rig, 0.01)
    assert watched(rig).waits_s[-1] == pytest.approx(0.01)
    assert rig.engine.submitted_rows == []
    step(rig, 0.011)
    assert rig.engine.submitted_rows == [1]


# -- committing -------------------------------------------------------------------------------------------------------


def test_outputs_are_committed_once_per_interval_from_the_first_one_on() -> None:
    rig = made()
    for _ in range(4):
        send(rig, 4)
        step(rig, 0.01)
    step(rig, 0.01)
    assert (rig.broker.commits, rig.broker.published) == (0, [])
    step(rig, 0.44)
    assert rig.broker.commits == 0
    step(rig, 0.05)
    assert (rig.broker.commits, rig.broker.committed) == (1, {0: 16})
    assert len(rig.broker.published) == 16
    step(rig, 9.0)
    assert rig.broker.commits == 1


def test_polls_wait_no_longer_than_until_the_commit_is_due() -> None:
    rig = made()
    send(rig, 4)
    step(rig)
    step(rig)
    step(rig, 0.45)
    assert watched(rig).waits_s[-1] == pytest.approx(0.05)


def test_a_due_commit_hands_what_was_gathered_to_the_engine_first() -> None:
    points: list[str] = []
    rig = made(asynchronous=True, probe=points.append)
    send(rig, 4)
    step(rig)
    rig.engine.finish()
    send(rig, 1)
    step(rig)
    rig.engine._asynchronous = True
    points.clear()
    step(rig, 0.5)
    assert points[:3] == ["submitted", "before_commit", "after_commit"]
    assert rig.broker.committed == {0: 4}
    assert rig.engine.outstanding == 1


# -- slots ------------------------------------------------------------------------------------------------------------


def test_without_a_free_slot_it_waits_then_pauses_while_polling_goes_on_then_resumes() -> None:
    rig = made(asynchronous=True)
    send(rig, 12)
    step(rig, times=2)
    watched(rig).calls.clear()
    step(rig, 0.1, times=3)
    assert watched(rig).calls == []  # it waits for the engine; nothing is polled that couldn't be taken
    assert not rig.source.paused
    step(rig, PAUSE_AFTER_S)
    assert watched(rig).calls == ["pause", "serve"]
    step(rig, 0.1, times=2)
    assert watched(rig).calls == ["pause", *["serve"] * 3]
    rig.engine.finish()
    step(rig)
    assert watched(rig).calls[-2:] == ["resume", "poll"]
    assert not rig.source.paused
    rig.settle()
    assert places(rig) == [(0, offset) for offset in range(12)]


def test_rebalances_are_served_while_it_is_starved() -> None:
    rig = made(asynchronous=True)
    send(rig, 4)
    send(rig, 8, partition=1)
    step(rig, times=2)
    step(rig)
    rig.source.lose(1)
    step(rig, PAUSE_AFTER_S)
    assert rig.source.assigned == {0}
    assert rig.engine.outstanding == 0
    rig.engine._asynchronous = False
    rig.source.assign(1)
    rig.settle()
    assert sorted(places(rig), key=str) == [*((0, n) for n in range(4)), *((1, n) for n in range(8))]


def test_starving_anew_is_timed_anew() -> None:
    rig = made(asynchronous=True)
    send(rig, 20)
    step(rig, times=2)
    step(rig, 0.45, times=2)
    rig.engine.finish(1)
    step(rig, 0.05)
    step(rig, 0.9)
    assert not rig.source.paused
    step(rig, PAUSE_AFTER_S)
    assert rig.source.paused


# -- breaker ----------------------------------------------------------------------------------------------------------


def tripped() -> Rig:
    """All of its partition 0's records are rejected; they filled the window before the first commit was due."""
    rig = made(rejected_share=0.5, window_records=8)
    for _ in range(20):
        rig.broker.append(0, b"key", b"this is no Avro")
    step(rig, times=4)
    return rig


def test_a_tripped_breaker_commits_nothing_and_stops_fetching() -> None:
    rig = tripped()
    assert rig.source.paused
    assert not rig.delivery.is_open
    send(rig, 4, partition=1)
    step(rig, 1.0, times=5)
    assert (rig.broker.committed, rig.broker.published) == ({}, [])
    assert watched(rig).calls[-5:] == ["serve"] * 5
    assert rig.engine.free == 2


def test_a_tripped_breaker_makes_the_worker_unready_and_says_why() -> None:
    (reason,) = latest(tripped()).not_ready
    assert reason.startswith(
        "8 of the last 8 records were rejected (bad_magic 8), more than breaker.rejected_share 0.5"
    )


def test_partitions_assigned_after_the_breaker_tripped_stay_paused() -> None:
    rig = made(partitions=3, rejected_share=0.5, window_records=8)
    rig.source.revoke(2)
    for _ in range(20):
        rig.broker.append(0, b"key", b"this is no Avro")
    send(rig, 4, partition=2)
    step(rig, times=4)
    rig.source.assign(2)
    step(rig, 0.5, times=3)
    assert rig.source.assigned == {0, 1, 2}
    assert (rig.source.paused, watched(rig).calls[-1]) == (True, "serve")
    assert rig.broker.published == []


def test_draining_after_the_breaker_tripped_commits_nothing() -> None:
    rig = tripped()
    rig.worker.drain(Deadline.after(5.0, rig.clock))
    assert rig.broker.committed == {}


def test_forecasts_that_are_bad_trip_the_breaker_too() -> None:
    rig = made(rejected_share=0.5, window_records=8)
    for number in range(8):
        rig.broker.append(0, key(f"sku{number}"), event(f"sku{number}", (-1.0, 0.0, 0.0)))
    step(rig, times=4)
    assert rig.source.paused
    assert (rig.broker.committed, rig.broker.published) == ({}, [])
    assert "bad_forecast" in latest(rig).not_ready[0]


# -- what others see --------------------------------------------------------------------------------------------------


def test_before_the_group_has_assigned_anything_the_worker_is_not_ready() -> None:
    rig = Rig(MemoryBroker(1))
    rig.worker.step()
    assert rig.worker.statistics.not_ready == ("the consumer group hasn't assigned partitions yet",)
    rig.source.assign(0)
    assert latest(rig).ready


def test_a_snapshot_tells_everything_and_stays_as_it_is() -> None:
    rig = made(coalesce=True)
    send(rig, 2)
    rig.broker.append(0, key("sku0"), event("sku0"), timestamp_ms=990_000)
    rig.broker.append(0, key("gone"), None)
    rig.broker.append(1, b"key", b"broken")
    rig.settle()
    send(rig, 3)
    rig.source.pause()
    before = rig.worker.statistics
    found = latest(rig)
    assert (found.records, found.forecasts, found.withdrawn, found.superseded) == (5, 2, 1, 1)
    assert found.rejections[Reason.TRUNCATED] == 1
    assert (found.assigned, found.rebalances) == ((0, 1), {"assigned": 1})
    assert found.transactions == {"committed": 1, "aborted": 0}
    assert sum(found.batches.values()) == found.batch_rows.count
    assert found.end_to_end.count == 2
    assert found.lags[0].records == 3
    assert found.lags[1].records == 0
    timed = {stage for stage, times in found.stages.items() if times.count}
    assert timed == set(Stage)
    assert (found.taken_s, found.last_poll_s) == (rig.clock(), rig.clock())
    assert found.polls > before.polls
    assert found is not before


def test_snapshots_are_made_now_and_then_and_lag_is_measured_less_often() -> None:
    rig = made()
    step(rig, 1.0)
    first = rig.worker.statistics
    step(rig, 0.05)
    assert rig.worker.statistics is first
    send(rig, 1)
    step(rig, 0.06)
    second = rig.worker.statistics
    assert second is not first
    assert second.lags == {}
    step(rig, 1.0)
    assert set(rig.worker.statistics.lags) == {0}


def test_headers_tell_the_origin_of_each_forecast_when_asked_for() -> None:
    rig = made(routing=replace(ROUTING, headers=True))
    send(rig, 2)
    rig.settle()
    for number, message in enumerate(rig.broker.published):
        headers = dict(message.headers)
        assert headers["source"] == f"in/0/{number}".encode()
        assert headers["model"] == b"fake"


def test_without_the_same_number_of_partitions_the_key_decides() -> None:
    rig = made(routing=replace(ROUTING, same_partitions=False, same_dead_letter_partitions=False))
    send(rig, 1, partition=1)
    rig.broker.append(1, key("gone"), None)
    rig.broker.append(1, b"key", b"this is no Avro")
    rig.settle()
    assert [(message.topic, message.partition) for message in rig.broker.published if message.value is not None] == [
        ("out", None),
        ("dead", None),
    ]
    assert [message.partition for message in rig.broker.published if message.value is None] in ([None], [-1])


def test_every_point_on_the_way_is_passed() -> None:
    points: list[str] = []
    rig = made(probe=points.append)
    send(rig, 4)
    rig.settle()
    rig.delivery.fail_next["commit"] = AbortableError("refused")
    send(rig, 4)
    rig.settle()
    rig.source.revoke(0)
    step(rig)
    assert set(points) == {
        *("polled", "decoded", "gathered", "submitted", "collected", "published"),
        *("before_commit", "after_commit", "revoked", "aborted"),
    }
