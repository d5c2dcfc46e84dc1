from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.guard_reference import EDGES
from worker.guard_window import MOST_MEAN, Sample, Window, binned, sample, stability_index

WEEK = np.array([1, 2, 3, 4, 5, 9, 8], np.float32)
RANDOM = np.random.default_rng(7)


def histories(rows: int, days: int = 30) -> NDArray[np.float32]:
    """Sales with a weekday pattern and some noise, `WEEK`'s first day being the day after the last one."""
    pattern = np.array([WEEK[(day - days) % 7] for day in range(days)], np.float32)
    return (pattern * RANDOM.uniform(0.8, 1.2, (rows, days))).astype(np.float32)


def forecasts(rows: int, shift: int = 0, horizon: int = 14) -> NDArray[np.float32]:
    """`WEEK`, `shift` days late."""
    days = np.array([WEEK[(day - shift) % 7] for day in range(horizon)], np.float32)
    return np.tile(days, (rows, 1))


def window_of(*samples: Sample, max_rows: int = 10_000) -> Window:
    window = Window(max_rows)
    for each in samples:
        window.add(each)
    return window


def test_bins_are_those_of_the_logarithm_and_the_outer_ones_are_open() -> None:
    ratio = np.exp(RANDOM.normal(0, 1.5, 1000)).astype(np.float32)
    expected, _ = np.histogram(np.clip(np.log(ratio.astype(np.float64)), -2, 2), bins=EDGES)
    np.testing.assert_array_equal(binned(ratio, EDGES), expected)
    assert binned(np.array([0.0, 1e9], np.float32), EDGES)[[0, -1]].tolist() == [1, 1]


def test_a_sample_holds_the_sum_of_the_logarithms_within_the_edges() -> None:
    history = np.full((3, 30), 10.0, np.float32)
    middle = np.array([[10.0] * 14, [20.0] * 14, [0.0] * 14], np.float32)
    made = sample(middle, history, EDGES, 0.05)
    assert made.rows == 3
    assert made.total == pytest.approx(0.0 + np.log(2) - 2.0, abs=1e-5)


def test_rows_without_history_and_absurd_ones_do_not_count() -> None:
    history = np.array([[0.0] * 30, [0.01] * 30, [MOST_MEAN * 2] * 30, [np.finfo(np.float32).max] * 30, [5.0] * 30])
    made = sample(np.full((5, 14), 5.0, np.float32), history.astype(np.float32), EDGES, 0.05)
    assert made.rows == 1
    assert made.bins.sum() == 1


def test_a_sample_may_be_empty() -> None:
    made = sample(np.ones((2, 14), np.float32), np.zeros((2, 30), np.float32), EDGES, 0.05)
    assert (made.rows, made.bins.sum(), made.total) == (0, 0, 0.0)
    assert not window_of(made).weekday_fit.any()


def test_bins_of_a_card_with_other_edges_are_counted_beside_ours() -> None:
    edges = np.array([-1.0, 0.0, 1.0])
    made = sample(np.full((4, 14), 12.0, np.float32), np.full((4, 30), 10.0, np.float32), edges, 0.05)
    assert made.card_bins.tolist() == [0, 4]
    assert len(made.bins) == len(EDGES) - 1


def test_the_window_is_the_sum_of_its_last_samples() -> None:
    made = [sample(forecasts(n) * scale, histories(n), EDGES, 0.05) for n, scale in [(5, 1), (7, 2), (6, 3), (4, 1.5)]]
    window = window_of(*made, max_rows=10)
    expected = window_of(*made[2:])
    assert window.rows == 10
    np.testing.assert_array_equal(window.bins, expected.bins)
    assert window.mean == pytest.approx(expected.mean)
    np.testing.assert_allclose(window.weekday_fit, expected.weekday_fit)


def test_a_sample_larger_than_the_window_stays_whole() -> None:
    assert window_of(sample(forecasts(9), histories(9), EDGES, 0.05), max_rows=4).rows == 9


@pytest.mark.parametrize("days", [28, 30, 7, 33])
@pytest.mark.parametrize("horizon", [7, 14, 10])
def test_a_forecast_fits_best_with_the_weekdays_that_it_is_for(days: int, horizon: int) -> None:
    history = histories(50, days)
    for shift in (0, 1, -1, 3):
        fit = window_of(sample(forecasts(50, shift, horizon), history, EDGES, 0.05)).weekday_fit
        assert fit.argmax() == -shift % 7
        assert fit.max() > 0.8
        assert np.sort(fit)[-2] < fit.max() - 0.2


def test_without_whole_weeks_there_is_no_weekday_pattern() -> None:
    assert not window_of(sample(forecasts(50, 1, 6), histories(50), EDGES, 0.05)).weekday_fit.any()
    assert not window_of(sample(forecasts(50, 1), histories(50, 6), EDGES, 0.05)).weekday_fit.any()


def test_histories_without_a_weekday_pattern_fit_no_forecast() -> None:
    noise = RANDOM.uniform(0.5, 1.5, (4000, 30)).astype(np.float32)
    assert np.abs(window_of(sample(forecasts(4000, 1), noise, EDGES, 0.05)).weekday_fit).max() < 0.05
    flat = np.full((50, 30), 4.0, np.float32)
    assert np.abs(window_of(sample(forecasts(50, 1), flat, EDGES, 0.05)).weekday_fit).max() < 1e-3


def test_the_stability_index_of_the_same_distribution_is_nothing_and_grows_with_distance_and_rows() -> None:
    reference = np.array([1000.0, 8000.0, 1000.0])
    assert stability_index(np.array([100, 800, 100]), reference) == pytest.approx(0.0, abs=1e-6)
    near, far = np.array([200, 700, 100]), np.array([700, 200, 100])
    assert 0 < stability_index(near, reference) < 0.25 < stability_index(far, reference)
    assert stability_index(far // 100, reference) < stability_index(far, reference)
    assert np.isfinite(stability_index(np.array([0, 0, 1000]), np.array([1.0, 0.0, 0.0])))


def test_the_stability_index_is_that_of_the_definition_for_many_rows() -> None:
    got, expected = np.array([0.2, 0.7, 0.1]), np.array([0.1, 0.8, 0.1])
    by_hand = float(((got - expected) * np.log(got / expected)).sum())
    assert stability_index((got * 10**7).astype(np.int64), expected * 10**7) == pytest.approx(by_hand, rel=1e-4)
