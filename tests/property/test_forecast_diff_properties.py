"""The comparison against sums written out in plain Python, and what must hold whatever is compared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from worker.forecast_diff import compare
from worker.forecast_table import ForecastTable

LEVELS = (0.10000000149011612, 0.5, 0.8999999761581421)
UNITS = st.floats(0, 1000, width=32)


def table(values: NDArray[np.float32]) -> ForecastTable:
    n = len(values)
    return ForecastTable(
        keys=[b"key%d" % i for i in range(n)], as_of=np.arange(n, dtype=np.int64), levels=LEVELS, values=values
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = (draw(st.integers(0, 5)), draw(st.integers(1, 4)), len(LEVELS))
    first, second = (draw(arrays(np.float32, shape, elements=UNITS)) for _ in range(2))
    return first, second


@st.composite
def sold(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    before, after = draw(pairs())
    actual = draw(arrays(np.float32, before.shape[:2], elements=UNITS | st.just(math.nan)))
    return before, after, actual


def same(got: float, expected: float) -> bool:
    return (math.isnan(got) and math.isnan(expected)) or got == pytest.approx(expected, rel=1e-5, abs=1e-9)


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@given(pairs())
def test_changes_are_the_sums_written_out(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    before, after = pair
    found = compare(table(before), table(after), movers=3)
    old, new = before.ravel().tolist(), after.ravel().tolist()
    moved = [abs(b - a) for a, b in zip(old, new, strict=True)]
    assert same(found.overall.relative, ratio(sum(moved), sum(old)))
    assert same(found.overall.mean_absolute, ratio(sum(moved), len(moved)))
    assert same(found.overall.largest_absolute, max(moved, default=math.nan))
    for day, change in enumerate(found.by_day):
        column = [abs(b - a) for a, b in zip(before[:, day, 1].tolist(), after[:, day, 1].tolist(), strict=True)]
        assert same(change.mean_absolute, ratio(sum(column), len(column)))
    assert found.identical == sum(a.tolist() == b.tolist() for a, b in zip(before, after, strict=True))


@given(pairs())
def test_the_other_way_round_swaps_the_sides(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    there, back = (compare(table(x), table(y), movers=99) for x, y in (pair, pair[::-1]))
    assert same(there.overall.mean_before, back.overall.mean_after)
    assert same(there.overall.mean_absolute, back.overall.mean_absolute)
    assert {m.key: m.change for m in there.movers} == {m.key: -m.change for m in back.movers}
    sizes = [abs(mover.change) for mover in there.movers]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size > 0 for size in sizes)


@given(pairs())
def test_with_itself_nothing_changed(pair: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    found = compare(table(pair[0]), table(pair[0].copy()))
    assert found.identical == found.forecasts == len(pair[0])
    assert not found.movers
    assert found.overall.largest_absolute == 0 or not len(pair[0])


@given(sold())
def test_accuracy_is_the_sums_written_out(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> None:
    before, after, actual = drawn
    found = compare(table(before), table(after), actual=actual)
    assert found.accuracy is not None
    cells = [(i, d) for i in range(actual.shape[0]) for d in range(actual.shape[1]) if not math.isnan(actual[i, d])]
    total = sum(float(actual[c]) for c in cells)
    for values, got in zip((before, after), found.accuracy, strict=True):
        errors = [float(values[i, d, 1]) - float(actual[i, d]) for i, d in cells]
        assert got.cells == len(cells)
        assert same(got.wape, ratio(sum(map(abs, errors)), total))
        assert same(got.bias, ratio(sum(errors), total))
        losses = 0.0
        for index, level in enumerate(LEVELS):
            for i, d in cells:
                gap = float(actual[i, d]) - float(values[i, d, index])
                losses += level * gap if gap >= 0 else (level - 1) * gap
        assert same(got.pinball, ratio(2 * losses / len(LEVELS), total))


def test_tables_that_do_not_belong_together_are_refused() -> None:
    values = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="different keys or levels"):
        compare(table(values), table(values[:1]))
    with pytest.raises(ValueError, match="different dates or days"):
        compare(table(values), table(values[:, :2]))
