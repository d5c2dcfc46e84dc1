import numpy as np
import pytest
from numpy.typing import NDArray

from worker.guard import CROSSING_TOLERANCE, Rule, faults


def good(rows: int = 3) -> NDArray[np.float32]:
    """float32[rows, 2, 3], all rules kept."""
    return np.tile(np.array([1.0, 2.0, 3.0], np.float32), (rows, 2, 1))


def test_good_forecasts_pass() -> None:
    assert faults(good()) == []
    assert faults(np.zeros((4, 7, 3), np.float32)) == []


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_nothing_has_no_faults(shape: tuple[int, ...]) -> None:
    assert faults(np.zeros(shape, np.float32)) == []


def test_one_quantile_cannot_cross() -> None:
    assert faults(np.array([[[5.0], [4.0]]], np.float32)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found(value: float) -> None:
    values = good()
    values[1, 1, 2] = value
    (fault,) = faults(values)
    assert (fault.row, fault.rule) == (1, Rule.NOT_FINITE)
    assert "day 1, quantile 2" in fault.detail
    assert str(np.float32(value)) in fault.detail


def test_what_is_negative_is_found() -> None:
    values = good()
    values[2, 0, 0] = -0.5
    (fault,) = faults(values)
    assert (fault.row, fault.rule) == (2, Rule.NEGATIVE)
    assert fault.detail == "negative: forecast[day 0, quantile 0] = -0.5"


def test_negative_zero_is_zero() -> None:
    assert faults(np.full((1, 1, 2), -0.0, np.float32)) == []


def test_crossing_quantiles_are_found_at_the_upper_one() -> None:
    values = good()
    values[0, 1] = [1.0, 3.0, 2.0]
    (fault,) = faults(values)
    assert (fault.row, fault.rule) == (0, Rule.CROSSING)
    assert "day 1, quantile 2" in fault.detail


def test_rounding_may_cross() -> None:
    within = 1.0 - CROSSING_TOLERANCE / 2
    beyond = 1.0 - CROSSING_TOLERANCE * 2
    assert faults(np.array([[[1.0, within]]], np.float32)) == []
    assert [fault.rule for fault in faults(np.array([[[1.0, beyond]]], np.float32))] == [Rule.CROSSING]


def test_rows_come_in_order_each_with_the_first_rule_broken() -> None:
    values = good(5)
    values[4, 0, 0] = np.nan
    values[3, 0] = [-1.0, -2.0, np.nan]
    values[1, 0] = [-1.0, -2.0, -3.0]
    values[0, 1] = [3.0, 2.0, 1.0]
    assert [(fault.row, fault.rule) for fault in faults(values)] == [
        (0, Rule.CROSSING),
        (1, Rule.NEGATIVE),
        (3, Rule.NOT_FINITE),
        (4, Rule.NOT_FINITE),
    ]


def test_the_largest_numbers_of_both_signs_raise_no_warning() -> None:
    largest = float(np.finfo(np.float32).max)
    values = np.array([[[largest, -largest]], [[np.inf, np.inf]]], np.float32)
    assert [(fault.row, fault.rule) for fault in faults(values)] == [(0, Rule.NEGATIVE), (1, Rule.NOT_FINITE)]
