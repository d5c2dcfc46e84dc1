"""After an outage: the latest event of each key across what is fetched, and what the worker says of it."""

from __future__ import annotations

import structlog

from tests.helpers.rig import event, key, read
from tests.helpers.turns import latest, made, step
from worker.errors import AbortableError
from worker.loop import FAILURES_IN_A_ROW


def test_a_full_batch_goes_on_over_everything_that_is_fetched() -> None:
    rig = made(coalesce=True)  # four rows a batch
    for hour in range(10):
        for sku in "ab":
            rig.broker.append(0, key(sku), event(sku, as_of=19_000 + hour))
    step(rig, times=12)
    rig.settle()
    assert rig.engine.submitted_rows == [2]
    assert [read(message)["source_offset"] for message in rig.broker.published] == [18, 19]
    found = latest(rig)
    assert (found.records, found.forecasts, found.superseded) == (20, 2, 18)
    assert rig.broker.committed[0] == 20


def test_distinct_keys_are_cut_as_ever() -> None:
    rig = made(coalesce=True)
    for number in range(12):
        rig.broker.append(0, key(f"sku{number}"), event(f"sku{number}"))
    rig.settle()
    assert rig.engine.submitted_rows == [4, 4, 4]


def test_the_oldest_unserved_event_counts_until_its_commit() -> None:
    rig = made(asynchronous=True)
    rig.clock.advance(500)
    rig.broker.append(0, key("a"), event("a"), timestamp_ms=int(rig.clock() * 1000) - 300_000)
    rig.broker.append(1, key("b"), event("b"), timestamp_ms=int(rig.clock() * 1000))
    step(rig, 1.1)
    assert 300 <= latest(rig).oldest_unserved_s <= 303
    rig.settle()
    step(rig, 1.1)
    assert latest(rig).oldest_unserved_s == 0


def test_being_behind_is_told_when_it_is_over() -> None:
    rig = made(coalesce=True)
    rig.clock.advance(10_000)
    with structlog.testing.capture_logs() as logs:
        for _ in range(6):
            rig.broker.append(0, key("a"), event("a"), timestamp_ms=int(rig.clock() * 1000) - 7_200_000)
        step(rig)
        rig.settle()
        step(rig, 2.0)
    (told,) = [entry for entry in logs if entry["event"] == "caught up"]
    assert told["oldest_s"] >= 7200
    assert (told["records"], told["superseded"]) == (6, 5)


def test_the_age_of_what_is_replayed_means_nothing() -> None:
    rig = made(coalesce=False, live=False)
    rig.clock.advance(10_000)
    with structlog.testing.capture_logs() as logs:
        rig.broker.append(0, key("a"), event("a"), timestamp_ms=1000)
        step(rig)
        rig.settle()
        step(rig, 2.0)
    assert "caught up" not in [entry["event"] for entry in logs]
    assert latest(rig).forecasts == 1
    assert latest(rig).oldest_unserved_s == 0


def test_a_worker_that_cannot_go_on_says_so() -> None:
    rig = made()
    at_first = rig.worker.stuck
    assert at_first is None
    rig.broker.append(0, key("a"), event("a"))
    for _ in range(FAILURES_IN_A_ROW):
        rig.delivery.fail_next["commit"] = AbortableError("no")
        for _ in range(4):
            step(rig, 0.6)
    assert rig.worker.stuck is not None
    assert "transactions were aborted, the last one because: no" in rig.worker.stuck
    rig.settle()
    assert not latest(rig).not_ready
