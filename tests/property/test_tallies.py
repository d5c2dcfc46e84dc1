import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.statistics import LATENCY_BOUNDS_S, ROW_BOUNDS, STAGE_BOUNDS_S, Stage, Tallies

SECONDS = st.floats(0, 1e6) | st.sampled_from([*STAGE_BOUNDS_S, *LATENCY_BOUNDS_S])


def expected_counts(values: list[float], bounds: tuple[float, ...]) -> tuple[int, ...]:
    """By numpy, on the other side: its bins are closed below, ours above, so both are mirrored at zero."""
    edges = np.array([-np.inf, *(-bound for bound in reversed(bounds)), np.inf])
    counts, _ = np.histogram(-np.array(values, dtype=np.float64), edges)
    return tuple(int(count) for count in reversed(counts))


@given(st.lists(st.lists(SECONDS, max_size=30), max_size=5))
def test_latencies_equal_numpys_histogram(polls: list[list[float]]) -> None:
    tallies = Tallies()
    for latencies in polls:
        tallies.end_to_end(np.array(latencies, dtype=np.float64), len(latencies))
    values = [latency for latencies in polls for latency in latencies]
    found = tallies.snapshot(0.0).end_to_end
    assert found.counts == expected_counts(values, LATENCY_BOUNDS_S)
    assert found.total == pytest.approx(np.sum(values))


@given(st.lists(SECONDS, max_size=50), st.sampled_from(Stage))
def test_stage_times_equal_numpys_histogram(values: list[float], stage: Stage) -> None:
    tallies = Tallies()
    for value in values:
        tallies.stage(stage, value)
    found = tallies.snapshot(0.0).stages[stage]
    assert found.counts == expected_counts(values, STAGE_BOUNDS_S)
    assert found.count == len(values)
    assert found.total == pytest.approx(np.sum(values))


@given(st.lists(st.tuples(st.integers(1, 100_000), st.sampled_from(["full", "due", "stop"]), st.integers(0, 9))))
def test_batches_add_up(batches: list[tuple[int, str, int]]) -> None:
    tallies = Tallies()
    for rows, reason, superseded in batches:
        tallies.batch(rows, reason, superseded)
    found = tallies.snapshot(0.0)
    assert found.batch_rows.counts == expected_counts([float(rows) for rows, _, _ in batches], ROW_BOUNDS)
    assert found.batch_rows.total == sum(rows for rows, _, _ in batches)
    assert sum(found.batches.values()) == len(batches)
    assert found.superseded == sum(superseded for _, _, superseded in batches)
