import numpy as np
import pytest
from numpy.typing import NDArray

from worker.shadow import Bounds, Comparison

BOUNDS = Bounds(rows=10, max_wape=0.25, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=3.0)
WEEK = np.array([10, 10, 10, 10, 11, 12, 11], np.float32)


def forecasts(rows: int, *, late: int = 0) -> NDArray[np.float32]:
    """float32[rows, 14, 3] of different size, with a weak weekday pattern."""
    middle = np.roll(np.tile(WEEK, 2), late) * np.arange(1, rows + 1)[:, None]
    return np.asarray(middle[:, :, None] * np.array([0.5, 1.0, 1.5]), np.float32)


def test_the_same_forecasts_are_within_all_bounds_once_there_are_enough() -> None:
    comparison = Comparison(BOUNDS, 1.0)
    complete = []
    for rows in (9, 1):
        comparison.add(forecasts(rows), forecasts(rows))
        complete.append(comparison.complete)
    assert complete == [False, True]
    assert comparison.verdict() is None


@pytest.mark.parametrize(("late", "words"), [(1, "1.00 days late, allowed 0.2"), (-2, "2.00 days early, allowed 0.2")])
def test_a_shadow_that_is_late_or_early_is_refused_even_if_it_differs_little(late: int, words: str) -> None:
    comparison = Comparison(BOUNDS, 1.0)
    comparison.add(forecasts(10), forecasts(10, late=late))
    assert comparison.difference.wape < BOUNDS.max_wape
    verdict = comparison.verdict()
    assert verdict is not None
    assert words in verdict


def test_a_shadow_that_is_not_finite_is_refused() -> None:
    comparison = Comparison(BOUNDS, 1.0)
    comparison.add(forecasts(10), np.full((10, 14, 3), np.nan, np.float32))
    assert comparison.verdict() is not None
