import numpy as np
import pytest
from numpy.typing import NDArray

from worker.guard_canary import Canary


def forecasts(*levels: float) -> NDArray[np.float32]:
    """float32[rows, 7, 3], the middle quantile the same level every day."""
    middle = np.repeat(np.array(levels, np.float32)[:, None], 7, axis=1)
    return (middle[:, :, None] * np.array([0.5, 1.0, 2.0], np.float32)).astype(np.float32)


def test_the_rows_that_are_missing_are_taken_from_all_over_the_batch() -> None:
    canary = Canary("aa", 8)
    assert canary.places(16, ()).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert canary.places(16, (0, 15)).tolist() == [1, 2, 4, 6, 8, 9, 11, 13]
    assert canary.places(5, (1, 3)).tolist() == [0, 2, 4]
    assert canary.places(2, (0, 1)).tolist() == []
    canary.add(forecasts(1, 1, 1, 1, 1), forecasts(1, 1, 1, 1, 1), 0.05)
    assert (canary.rows, canary.complete) == (5, False)
    assert canary.places(16, ()).tolist() == [0, 5, 10]
    canary.add(forecasts(1, 1, 1), forecasts(1, 1, 1), 0.05)
    assert canary.complete
    assert canary.places(16, ()).tolist() == []


def test_each_row_counts_the_same_however_much_it_sells() -> None:
    canary = Canary("aa", 8)
    assert canary.difference == 0.0
    canary.add(forecasts(1000.0, 1.0), forecasts(1000.0, 1.5), 0.05)
    assert canary.difference == pytest.approx(0.5 / 1.25 / 2)
    canary.add(forecasts(3.0, 2.0), forecasts(1.0, 2.0), 0.05)
    assert canary.difference == pytest.approx((0.5 / 1.25 + 2.0 / 2.0) / 4)


def test_it_does_not_matter_which_of_the_two_came_first_and_nothing_at_all_is_as_far_as_it_goes() -> None:
    for one, other in [((1.0, 5.0), (2.0, 4.0)), ((0.0, 0.0), (7.0, 0.5))]:
        there, back = Canary("aa", 8), Canary("aa", 8)
        there.add(forecasts(*one), forecasts(*other), 0.05)
        back.add(forecasts(*other), forecasts(*one), 0.05)
        assert there.difference == pytest.approx(back.difference)
    assert there.difference == pytest.approx(2.0)


def test_rows_without_forecasts_are_counted_but_not_compared() -> None:
    canary = Canary("aa", 8)
    canary.add(forecasts(0.0, 0.01, np.nan, 1.0), forecasts(0.0, 0.02, 5.0, 1.1), 0.05)
    assert canary.rows == 4
    assert canary.difference == pytest.approx(0.1 / 1.05)


def test_the_largest_numbers_raise_no_warning() -> None:
    largest = float(np.finfo(np.float32).max) / 4
    canary = Canary("aa", 8)
    canary.add(forecasts(1.0, np.inf), forecasts(largest, largest), 0.05)
    assert canary.difference == pytest.approx(2.0)
