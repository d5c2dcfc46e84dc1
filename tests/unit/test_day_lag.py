import numpy as np
import pytest
from numpy.typing import NDArray

from worker.day_lag import LEAST_DAYS, DayLag

RANDOM = np.random.default_rng(5)


def week(rows: int, horizon: int, *, late: int = 0) -> NDArray[np.float32]:
    """Forecasts of different size that go up and down alike, `late` days too late."""
    days = np.array([[1, 2, 3, 4, 5, 9, 8][(day - late) % 7] for day in range(horizon)])
    return (days * RANDOM.uniform(0.1, 100.0, (rows, 1)) * RANDOM.uniform(0.9, 1.1, (rows, horizon))).astype(np.float32)


def lag_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> DayLag:
    lag = DayLag()
    lag.add(one, other)
    return lag


@pytest.mark.parametrize("horizon", [7, 14])
@pytest.mark.parametrize("late", [-3, -2, -1, 1, 2, 3])
def test_forecasts_that_are_late_or_early_are_found_with_their_days(horizon: int, late: int) -> None:
    assert lag_of(week(40, horizon), week(40, horizon, late=late)).days == late


def test_forecasts_for_the_same_days_fit_best_as_they_are_whatever_their_size() -> None:
    lag = lag_of(week(40, 14), week(40, 14) * 3)
    assert lag.days == pytest.approx(0.0, abs=0.02)
    assert lag.fits[0] > 0.9


@pytest.mark.parametrize("late", [1, -1])
def test_forecasts_of_which_only_a_part_is_late_or_early_are_between_two_days(late: int) -> None:
    parts = week(40, 14), week(40, 14, late=late)
    days = lag_of(
        parts[0], parts[0] / parts[0].mean(axis=1)[:, None] * 0.7 + parts[1] / parts[1].mean(axis=1)[:, None] * 0.3
    ).days
    assert days is not None
    assert 0.1 < days * late < 0.5


def test_batches_add_up() -> None:
    one, other = week(40, 14), week(40, 14, late=1)
    parts = DayLag()
    for rows in (slice(10), slice(10, 40)):
        parts.add(one[rows], other[rows])
    assert parts.fits == pytest.approx(lag_of(one, other).fits)


def test_forecasts_without_anything_in_common_say_nothing() -> None:
    noise = RANDOM.uniform(1.0, 2.0, (40, 14)).astype(np.float32)
    assert lag_of(week(40, 14), noise).days is None
    assert lag_of(week(40, 14), np.ones((40, 14), np.float32)).days is None
    assert lag_of(np.zeros((0, 14), np.float32), np.zeros((0, 14), np.float32)).days is None


def test_a_horizon_of_a_few_days_has_no_lag() -> None:
    short = LEAST_DAYS
    assert set(lag_of(week(40, short), week(40, short)).fits) == {0}
    assert lag_of(week(40, short), week(40, short)).days == 0.0
    shorter = lag_of(week(40, short - 1), week(40, short - 1))
    assert (shorter.fits, shorter.days) == ({}, None)


def test_rows_that_say_nothing_or_nothing_finite_are_left_out() -> None:
    one, other = week(6, 14), week(6, 14)
    expected = lag_of(one[3:], other[3:]).fits
    one[0], other[1] = 0.0, np.nan
    one[2, :2] = [np.inf, -np.inf]
    assert lag_of(one, other).fits == pytest.approx(expected)
