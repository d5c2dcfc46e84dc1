from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.shadow import Bounds, Comparison

BOUNDS = Bounds(rows=4, max_wape=0.2, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=3.0)
WIDE = Bounds(rows=10, max_wape=0.25, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=3.0)
WEEK = np.array([10, 10, 10, 10, 11, 12, 11], np.float32)


def forecasts(*medians: float, width: float = 2.0) -> NDArray[np.float32]:
    """float32[rows, 1, 3] around the medians."""
    return np.array([[[m - width / 2, m, m + width / 2]] for m in medians], np.float32)


def weeks(*, late: int = 0) -> NDArray[np.float32]:
    """float32[10, 14, 3] of different size, with a weak weekday pattern."""
    middle = np.roll(np.tile(WEEK, 2), late) * np.arange(1, 11)[:, None]
    return np.asarray(middle[:, :, None] * np.array([0.5, 1.0, 1.5]), np.float32)


def compared(*batches: tuple[NDArray[np.float32], NDArray[np.float32]], latency: float = 1.0) -> Comparison:
    made = Comparison(BOUNDS, latency)
    for serving, shadow in batches:
        made.add(serving, shadow)
    return made


def test_all_measures_are_relative_to_the_serving_version_over_all_batches() -> None:
    found = compared(
        (forecasts(10, 20), forecasts(12, 19, width=3.0)), (forecasts(10), forecasts(10, width=3.0)), latency=1.5
    ).difference
    assert (found.rows, found.latency_ratio) == (3, 1.5)
    assert (found.wape, found.bias, found.width_ratio) == pytest.approx((3 / 40, 1 / 40, 1.5))


def test_the_same_forecasts_differ_in_nothing() -> None:
    found = compared((forecasts(1, 2, 3, 4), forecasts(1, 2, 3, 4)))
    assert (found.difference.wape, found.difference.bias, found.difference.width_ratio) == (0.0, 0.0, 1.0)
    assert found.verdict() is None


def test_of_two_quantiles_the_upper_one_is_compared() -> None:
    serving = np.array([[[1.0, 10.0]]], np.float32)
    shadow = np.array([[[5.0, 11.0]]], np.float32)
    assert compared((serving, shadow)).difference.wape == pytest.approx(0.1)


def test_it_is_complete_after_its_rows() -> None:
    made = compared((forecasts(1, 1, 1), forecasts(1, 1, 1)))
    assert not made.complete
    made.add(forecasts(1), forecasts(1))
    assert made.complete


def test_another_shape_is_an_error_with_both() -> None:
    with pytest.raises(ValueError, match=r"shape: got \(1, 1, 3\), the serving version gives \(2, 1, 3\)"):
        Comparison(BOUNDS, 1.0).add(forecasts(1, 2), forecasts(1))


@pytest.mark.parametrize(
    ("shadow", "latency", "expected"),
    [
        (forecasts(13, 7, 10, 10, width=2.0), 1.0, None),  # 0.15 apart, no bias
        (forecasts(16, 4, 10, 10), 1.0, "difference from the serving version 0.300, allowed 0.2"),
        (forecasts(11.2, 11.2, 11.2, 11.2), 1.0, "bias +0.120, allowed ±0.1"),
        (forecasts(8.8, 8.8, 8.8, 8.8), 1.0, "bias -0.120, allowed ±0.1"),
        (forecasts(10, 10, 10, 10, width=4.1), 1.0, "quantiles 2.050 times as far apart, allowed 0.50 to 2"),
        (forecasts(10, 10, 10, 10, width=0.9), 1.0, "quantiles 0.450 times as far apart"),
        (forecasts(10, 10, 10, 10), 3.1, "a full batch takes 3.1 times as long, allowed 3"),
        (forecasts(10, 10, 10, 10), 3.0, None),
        (forecasts(10, 10, 10, 10), math.nan, None),  # not known
        (forecasts(math.nan, 10, 10, 10), 1.0, "difference from the serving version nan, allowed 0.2"),
    ],
)
def test_each_bound_is_held_and_told_with_its_figures(
    shadow: NDArray[np.float32], latency: float, expected: str | None
) -> None:
    verdict = compared((forecasts(10, 10, 10, 10), shadow), latency=latency).verdict()
    if expected is None:
        assert verdict is None
    else:
        assert verdict is not None
        assert verdict.startswith("shadow over 4 rows: ")
        assert expected in verdict


def test_all_that_is_wrong_is_told_at_once() -> None:
    verdict = compared((forecasts(10, 10), forecasts(20, 20, width=9.0)), latency=9.0).verdict()
    assert verdict is not None
    assert verdict.count("; ") == 3


def test_forecasts_of_nothing_agree_with_nothing_only() -> None:
    zeros = forecasts(0, 0, 0, 0)
    assert compared((zeros, zeros)).verdict() is None
    assert compared((zeros, forecasts(1, 1, 1, 1))).difference.wape == math.inf
    less = compared((zeros, forecasts(-1, -1, -1, -1)))
    assert less.difference.bias == -math.inf
    assert "bias -inf" in (less.verdict() or "")


def test_a_single_quantile_has_no_width() -> None:
    one = np.full((4, 2, 1), 5.0, np.float32)
    assert compared((one, one)).verdict() is None


@pytest.mark.parametrize(("late", "words"), [(1, "1.00 days late, allowed 0.2"), (-2, "2.00 days early, allowed 0.2")])
def test_a_shadow_that_is_late_or_early_is_refused_even_if_it_differs_little(late: int, words: str) -> None:
    comparison = Comparison(WIDE, 1.0)
    comparison.add(weeks(), weeks(late=late))
    assert comparison.difference.wape < WIDE.max_wape
    verdict = comparison.verdict()
    assert verdict is not None
    assert words in verdict
