"""The guard against rules written down number by number."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from worker.guard import CROSSING_TOLERANCE, Rule, faults

floats = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
mostly_good = st.one_of(st.floats(0.0, 100.0, width=32), st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0]), floats)
forecasts = arrays.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4)), elements=mostly_good
)


def first_broken(row: NDArray[np.float32]) -> Rule | None:
    numbers = [float(value) for value in row.ravel()]
    if not all(math.isfinite(number) for number in numbers):
        return Rule.NOT_FINITE
    if any(number < 0 for number in numbers):
        return Rule.NEGATIVE
    for day in row:
        for lower, upper in itertools.pairwise(day):
            if np.float32(lower) - np.float32(upper) > np.float32(CROSSING_TOLERANCE) * np.float32(lower):
                return Rule.CROSSING
    return None


@given(forecasts)
@example(np.array([[[np.finfo(np.float32).max, np.finfo(np.float32).min]]], np.float32))
def test_finds_exactly_the_rows_that_break_a_rule(values: NDArray[np.float32]) -> None:
    wanted = [(row, rule) for row in range(len(values)) if (rule := first_broken(values[row])) is not None]
    found = faults(values)
    assert [(fault.row, fault.rule) for fault in found] == wanted
    for fault in found:
        assert fault.detail.startswith(f"{fault.rule}: forecast[day ")


@given(forecasts)
def test_what_is_left_passes_and_rows_do_not_matter_to_each_other(values: NDArray[np.float32]) -> None:
    bad = {fault.row for fault in faults(values)}
    assert faults(values[[row for row in range(len(values)) if row not in bad]]) == []
    assert {row for row in range(len(values)) if faults(values[row : row + 1])} == bad


@given(forecasts)
def test_the_forecasts_stay_as_they_are(values: NDArray[np.float32]) -> None:
    before = values.copy()
    faults(values)
    np.testing.assert_array_equal(values, before)


@given(
    arrays.arrays(np.float32, (3, 4, 3), elements=st.floats(0.0, 2.0**100, width=32)),
    arrays.arrays(np.float32, (3, 4, 3), elements=st.floats(-(2.0**-15), 2.0**-15, width=32)),
)
def test_rounding_of_ascending_quantiles_is_forgiven(values: NDArray[np.float32], noise: NDArray[np.float32]) -> None:
    """Numbers that are off by 2^-15 of their size, a quarter of the tolerance of crossing or so."""
    ascending = np.sort(values, axis=2)
    assert faults((ascending * (1 + noise)).astype(np.float32)) == []
