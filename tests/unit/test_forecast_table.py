from __future__ import annotations

import numpy as np
import pytest

from worker.errors import ContractError
from worker.forecast_table import Gathered, common_layout, matched


def content(
    as_of: int, level: float = 1.0, levels: tuple[float, ...] = (0.1, 0.5, 0.9), days: int = 3
) -> dict[str, object]:
    return {
        "as_of": as_of,
        "quantile_levels": [float(np.float32(each)) for each in levels],
        "quantiles": [[level + index + day for day in range(days)] for index in range(len(levels))],
        "source_partition": 1,
        "source_offset": as_of,
        "model": "m",
        "model_version": "1",
    }


def gathered(*rows: tuple[bytes, dict[str, object] | None], by_date: bool = False) -> Gathered:
    found = Gathered(by_date=by_date)
    for key, value in rows:
        if value is None:
            found.withdraw(key)
        else:
            found.add(key, value)
    return found


def test_the_newest_of_a_key_counts_and_a_tombstone_ends_it() -> None:
    found = gathered((b"a", content(1)), (b"a", content(2)), (b"b", content(1)), (b"b", None), (b"c", None))
    assert {unit: row.as_of for unit, row in found.rows.items()} == {(b"a", None): 2}
    assert found.models == {"m 1": 3}


def test_by_date_each_as_of_counts_and_a_tombstone_ends_all() -> None:
    found = gathered((b"a", content(1)), (b"a", content(2)), (b"a", content(2, level=9.0)), by_date=True)
    assert set(found.rows) == {(b"a", 1), (b"a", 2)}
    found.withdraw(b"a")
    found.put(b"a", gathered((b"a", content(5))).rows[b"a", None])
    assert set(found.rows) == {(b"a", 5)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantiles": []},
        {"quantiles": [[1.0], [2.0]]},
        {"quantiles": [[1.0], [2.0, 3.0], [1.0]]},
        {"quantiles": None},
        {"quantile_levels": None},
        {"as_of": None},
    ],
)
def test_what_is_not_shaped_like_a_forecast_is_counted(wrong: dict[str, object]) -> None:
    found = gathered((b"a", {**content(1), **wrong}))
    assert (found.rows, found.unreadable) == ({}, 1)


def test_units_match_by_key_and_date() -> None:
    before = gathered((b"a", content(1)), (b"b", content(1)), (b"c", content(1)))
    after = gathered((b"c", content(1)), (b"a", content(1)), (b"b", content(2)), (b"d", content(1)), (b"e", content(1)))
    found = matched(before, after)
    assert found.units == [(b"a", None), (b"c", None)]
    assert (found.only_before, found.only_after, found.other_date) == (0, 2, 1)


def test_the_common_layout_is_what_all_have() -> None:
    before = gathered((b"a", content(1, levels=(0.1, 0.5, 0.9), days=3)))
    after = gathered((b"a", content(1, levels=(0.25, 0.5, 0.9), days=2)))
    units = matched(before, after).units
    layout = common_layout(before.layouts(units) | after.layouts(units))
    assert layout == (2, (0.5, float(np.float32(0.9))))
    table = before.table(matched(before, after).units, layout)
    assert table.values.tolist() == [[[2.0, 3.0], [3.0, 4.0]]]  # day, level
    assert table.take(np.array([0], np.intp)).keys == [b"a"]
    assert len(table) == 1
    assert common_layout([]) == (1, (0.5,))


def test_forecasts_without_a_match_do_not_cut_the_others() -> None:
    before = gathered((b"a", content(1)), (b"gone", content(1, levels=(0.25,), days=1)))
    after = gathered((b"a", content(1)), (b"other", content(1, levels=(0.75,), days=2)))
    units = matched(before, after).units
    layout = common_layout(before.layouts(units) | after.layouts(units))
    assert layout == (3, tuple(float(np.float32(each)) for each in (0.1, 0.5, 0.9)))
    assert before.table(units, layout).values.shape == (1, 3, 3)


def test_no_common_level_is_refused() -> None:
    with pytest.raises(ContractError, match=r"got \['0.1'\]; \['0.9'\], expected at least one"):
        common_layout([(3, (0.1,)), (3, (0.9,))])
