import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from worker.engine import EngineSpec
from worker.records import Reason
from worker.statistics import (
    COMMIT_BOUNDS,
    LATENCY_BOUNDS_S,
    ROW_BOUNDS,
    STAGE_BOUNDS_S,
    Histogram,
    Lag,
    Stage,
    Tallies,
)

SPEC = EngineSpec(
    inputs={"sales": 30},
    horizon=14,
    quantiles=(0.1, 0.5, 0.9),
    max_rows=512,
    model="demand",
    version="1",
    precision="fp32",
    digest="ab",
)


def test_a_new_worker_has_done_nothing_and_is_starting() -> None:
    statistics = Tallies().snapshot(1.5)
    assert statistics.taken_s == 1.5
    assert statistics.last_poll_s is None
    assert statistics.records == statistics.polls == statistics.forecasts == 0
    assert statistics.not_ready == ("starting",)
    assert not statistics.ready
    assert statistics.engine is None
    assert set(statistics.rejections) == set(Reason)
    assert set(statistics.stages) == set(Stage)
    assert statistics.transactions == {"committed": 0, "aborted": 0}


def test_what_is_told_is_counted() -> None:
    tallies = Tallies()
    tallies.polled(5, 10.0)
    tallies.polled(0, 11.0)
    tallies.batch(4, "full", superseded=2)
    tallies.batch(1, "full")
    tallies.batch(3, "due")
    tallies.rejected(Reason.TRUNCATED)
    tallies.rejected(Reason.TRUNCATED, 3)
    tallies.forecast(4)
    tallies.withdrawn(2)
    tallies.transaction("committed")
    tallies.rebalanced("revoked")
    tallies.engine(SPEC)
    tallies.not_ready(())
    statistics = tallies.snapshot(12.0)
    assert (statistics.polls, statistics.records, statistics.last_poll_s) == (2, 5, 11.0)
    assert statistics.batches == {"full": 2, "due": 1}
    assert (statistics.batch_rows.count, statistics.batch_rows.total) == (3, 8.0)
    assert statistics.superseded == 2
    assert statistics.rejections[Reason.TRUNCATED] == 4
    assert statistics.rejections[Reason.OVERSIZE] == 0
    assert (statistics.forecasts, statistics.withdrawn) == (4, 2)
    assert statistics.transactions == {"committed": 1, "aborted": 0}
    assert statistics.rebalances == {"revoked": 1}
    assert statistics.engine is SPEC
    assert statistics.ready


@pytest.mark.parametrize(("rows", "bucket"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (65536, 16), (65537, 17)])
def test_batch_sizes_fall_into_powers_of_two(rows: int, bucket: int) -> None:
    tallies = Tallies()
    tallies.batch(rows, "full")
    assert tallies.snapshot(0.0).batch_rows.counts.index(1) == bucket


def test_stage_times_are_kept_apart() -> None:
    tallies = Tallies()
    tallies.stage(Stage.ENGINE, 0.002)
    tallies.stage(Stage.ENGINE, 100.0)
    stages = tallies.snapshot(0.0).stages
    assert stages[Stage.ENGINE].count == 2
    assert stages[Stage.ENGINE].counts[-1] == 1
    assert stages[Stage.ENGINE].total == pytest.approx(100.002)
    assert stages[Stage.POLL] == Histogram(STAGE_BOUNDS_S, (0,) * (len(STAGE_BOUNDS_S) + 1), 0.0)


def test_unknown_event_times_are_left_out_and_clocks_that_disagree_count_as_zero() -> None:
    tallies = Tallies()
    tallies.end_to_end(np.array([np.nan, -5.0, 0.01, 1e9]), 4)
    found = tallies.snapshot(0.0).end_to_end
    assert found.count == 3
    assert (found.counts[0], found.counts[-1]) == (2, 1)
    assert found.total == pytest.approx(1e9 + 0.01)


def test_no_latencies_change_nothing() -> None:
    tallies = Tallies()
    tallies.end_to_end(np.array([]), 0)
    assert tallies.snapshot(0.0).end_to_end.count == tallies.snapshot(0.0).commit_rows.count == 0


def test_rows_of_commits_are_counted_also_those_without_a_time() -> None:
    assert list(COMMIT_BOUNDS) == sorted(set(COMMIT_BOUNDS))
    tallies = Tallies()
    tallies.end_to_end(np.array([]), 96)
    tallies.end_to_end(np.zeros(97), 97)
    found = tallies.snapshot(0.0).commit_rows
    assert (found.count, found.total) == (2, 193)
    assert [COMMIT_BOUNDS[place] for place, count in enumerate(found.counts) if count] == [96, 128]


def test_lags_of_partitions_that_went_are_forgotten() -> None:
    tallies = Tallies()
    tallies.assigned([2, 0, 1])
    tallies.lag(0, 10, 1.0)
    tallies.lag(2, 20, 2.0)
    tallies.assigned({2, 3})
    statistics = tallies.snapshot(0.0)
    assert statistics.assigned == (2, 3)
    assert statistics.lags == {2: Lag(20, 2.0)}


def test_a_snapshot_does_not_change_with_what_comes_after() -> None:
    tallies = Tallies()

    def work() -> None:
        tallies.polled(1, 2.0)
        tallies.batch(1, "due")
        tallies.rejected(Reason.OVERSIZE)
        tallies.stage(Stage.DECODE, 1.0)
        tallies.end_to_end(np.array([1.0]), 1)
        tallies.transaction("aborted")
        tallies.rebalanced("lost")
        tallies.assigned([1])
        tallies.lag(1, 1, 1.0)

    work()
    before = tallies.snapshot(3.0)
    copy = {f.name: getattr(before, f.name) for f in dataclasses.fields(before)}
    shown = repr(before)
    work()
    assert repr(before) == shown
    assert copy == {f.name: getattr(before, f.name) for f in dataclasses.fields(before)}
    with pytest.raises(TypeError):
        before.batches["due"] = 9  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.records = 9  # type: ignore[misc]


def test_bounds_rise() -> None:
    for bounds in (ROW_BOUNDS, STAGE_BOUNDS_S, LATENCY_BOUNDS_S):
        assert list(bounds) == sorted(set(bounds))


def test_settings_and_statistics_load_no_kafka_client() -> None:
    script = "import sys, worker.statistics, worker.settings, worker.cli; print('confluent_kafka' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
