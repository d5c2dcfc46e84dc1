from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.workers import FRAMING, SCHEMA, event
from worker import actuals as module
from worker.actuals import Actuals, actuals_from_events, actuals_from_parquet
from worker.errors import ConfigurationError
from worker.records import Record

DAY = dt.date(2024, 6, 1)
NUMBER = (DAY - dt.date(1970, 1, 1)).days


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(-5, 40), st.floats(0, 9, width=32)), max_size=8
        ),
        max_size=5,
    ),
    st.integers(-10, 40),
    st.integers(1, 6),
)
def test_the_last_word_on_each_day_counts(parts: list[list[tuple[bytes, int, float]]], as_of: int, days: int) -> None:
    found, expected = Actuals(), {}
    for part in parts:
        dates, sales = [day for _, day, _ in part], [value for *_, value in part]
        found.add([key for key, *_ in part], np.array(dates, np.int64), np.array(sales, np.float32))
        expected.update({(key, day): value for key, day, value in part})
    assert len(found) == len(expected)
    looked_up = found.of([b"a", b"unknown", b"c"], np.array([as_of] * 3, np.int64), days)
    for row, key in enumerate([b"a", b"unknown", b"c"]):
        for day in range(days):
            value = expected.get((key, as_of + 1 + day))
            assert looked_up[row, day] == value or (value is None and math.isnan(looked_up[row, day]))


def test_many_cells_are_settled_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PENDING_CELLS", 3)
    found = Actuals()
    for value in range(10):
        found.add([b"a", b"b"], np.array([5, 5]), np.array([value, -value], np.float32))
    assert found.of([b"a", b"b"], np.array([4, 4]), 1).tolist() == [[9.0], [-9.0]]
    assert len(found) == 2


def written(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("dates", [[DAY, DAY], [dt.datetime.combine(DAY, dt.time()), None], ["2024-06-01", None]])
def test_parquet_with_dates_of_any_kind(tmp_path: Path, dates: list[object]) -> None:
    path = written(tmp_path / "x", sku_id=["a", "b"], store_id=[1, 2], date=dates, sales=[3, None], other=["x", "y"])
    found = actuals_from_parquet(path, ["sku_id", "store_id"])
    assert len(found) == 1
    assert found.of([b"a|1"], np.array([NUMBER - 1]), 1).tolist() == [[3.0]]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x", sku_id=["a"], sales=[1.0])
    with pytest.raises(ConfigurationError, match="got columns sku_id, sales, expected sku_id, store_id, date, sales"):
        actuals_from_parquet(path, ["sku_id", "store_id"])
    (tmp_path / "y").write_text("no parquet")
    for name in ("y", "nowhere"):
        with pytest.raises(ConfigurationError, match="expected a Parquet file"):
            actuals_from_parquet(tmp_path / name, ["sku_id"])


def record(offset: int, value: bytes | None) -> Record:
    return Record(topic="in", partition=0, offset=offset, timestamp_ms=0, key=b"k", value=value)


def test_histories_of_events_are_days_of_sales() -> None:
    records = [record(0, b"broken"), record(1, None), record(2, event(1, 19_900)), record(3, event(2, 19_905))]
    found = actuals_from_events(
        records, schema=SCHEMA, framing=FRAMING, key_fields=["sku_id", "store_id"], max_value_bytes=1 << 20
    )
    assert len(found) == 60
    expected = [float((7 + day * 3) % 50 + 1) for day in range(30)]
    assert found.of([b"sku1|store"], np.array([19_870]), 30).tolist() == [expected]


def test_a_schema_without_sales_is_refused() -> None:
    schema = {"type": "record", "name": "X", "fields": [{"name": "sku_id", "type": "string"}]}
    with pytest.raises(ConfigurationError, match="give a Parquet file instead"):
        actuals_from_events([], schema=schema, framing=FRAMING, key_fields=["sku_id"], max_value_bytes=9)
