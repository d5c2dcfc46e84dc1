from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from engine_build.calibration import calibration_from_parquet, calibration_of, digest_of
from engine_build.coverage import longest_run, volume_classes
from engine_build.errors import CalibrationError
from tests.helpers.onnx_graphs import SCHEMA

INPUTS: dict[str, int | None] = {"sales": 8, "as_of": None}


def events(count: int = 1400, days: int = 14) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(4)
    return {
        "sales": (random.lognormal(1, 1, (count, 1)) * random.uniform(0.5, 1.5, (count, 8))).astype(np.float32),
        "promo": (random.uniform(size=(count, 8)) < 0.05).astype(np.float32),
        "as_of": (18_000 + np.arange(count) % days).astype(np.float32),
    }


def calibrated(columns: dict[str, NDArray[np.float32]], **options: Any) -> Any:
    return calibration_of(columns, INPUTS, SCHEMA, source="rows", **options)


def refused(columns: dict[str, NDArray[np.float32]], **options: Any) -> str:
    with pytest.raises(CalibrationError) as caught:
        calibrated(columns, **options)
    return str(caught.value)


def test_rows_are_spread_over_days_and_volumes() -> None:
    found = calibrated(events(), rows=700)
    assert len(found) == 700
    assert set(found.columns) == set(INPUTS)
    assert np.ptp(np.unique(found.as_of, return_counts=True)[1]) <= 4
    assert min(found.coverage.volume_rows) > 700 / 4 * 0.9
    assert found.coverage.missing() == ()
    assert found.coverage.consecutive_days == 14


def test_digest_and_sample_do_not_depend_on_the_order_of_reading() -> None:
    columns = events()
    order = np.random.default_rng(9).permutation(1400)
    shuffled = {name: values[order] for name, values in columns.items()}
    assert calibrated(columns, rows=600).digest == calibrated(shuffled, rows=600).digest
    assert calibrated(columns, rows=600, seed=1).digest != calibrated(columns, rows=600, seed=2).digest


def test_a_digest_tells_any_change() -> None:
    columns = {"sales": np.ones((3, 2), np.float32), "as_of": np.arange(3, dtype=np.float32)}
    changed = {**columns, "sales": columns["sales"] * np.float32(1.0000001)}
    assert digest_of(columns) != digest_of(changed)
    assert digest_of(columns) == digest_of({name: values[::-1] for name, values in columns.items()})
    assert digest_of(columns) != digest_of({"sales": columns["sales"][:, :1], "as_of": columns["as_of"]})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    columns = events()
    columns["sales"][[5, 9], 3] = value
    assert "column sales: 2 rows hold NaN or infinity, first row 5; drop or fill them" in refused(columns)


def test_a_constant_column_is_refused_unless_it_is_allowed() -> None:
    columns = events()
    columns["sales"][:] = 3.0
    assert "column sales: all 1,400 rows are the same (first value 3)" in refused(columns)
    assert "pass --allow-constant sales" in refused(columns)
    assert len(calibrated(columns, allow_constant=["sales"], allow_thin=True)) == 1400


def test_a_constant_column_that_is_the_schemas_default_is_no_covariate() -> None:
    columns = events()
    columns["promo"][:] = 0.0
    found = calibration_of(columns, {**INPUTS, "promo": 8}, SCHEMA, source="rows", allow_thin=True)
    assert found.coverage.special_rows == 0
    columns["promo"][:] = 1.0
    with pytest.raises(CalibrationError, match="column promo: all 1,400 rows are the same"):
        calibration_of(columns, {**INPUTS, "promo": 8}, SCHEMA, source="rows")


def test_everything_that_is_too_thin_is_told_at_once() -> None:
    columns = {name: values[:40] for name, values in events(days=3).items()}
    columns["promo"][:] = 0.0
    message = refused(columns)
    for part in (
        "rows: got 40, expected 500 or more",
        "consecutive days (as_of): got 3, expected 7",
        "rows with a holiday or promotion: got 0, expected 25",
        "rows in volume class 1: got 10, expected 25",
        "--allow-thin-calibration",
    ):
        assert part in message
    assert len(calibrated(columns, allow_thin=True)) == 40


def test_days_with_a_gap_are_not_consecutive() -> None:
    assert longest_run([1, 2, 3, 5, 6, 7, 8]) == 4
    assert longest_run([]) == 0


def test_rows_of_one_volume_are_one_class() -> None:
    assert set(volume_classes(np.ones((10, 8), np.float32))) == {0}


def parquet(folder: Path, **changes: Any) -> Path:
    columns: dict[str, Any] = {name: list(values) for name, values in events().items()} | changes
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


def test_parquet_columns_are_named_after_event_fields(tmp_path: Path) -> None:
    found = calibration_from_parquet(parquet(tmp_path), INPUTS, SCHEMA)
    assert found.digest == calibrated(events()).digest


def test_dates_become_days_and_a_missing_covariate_its_default(tmp_path: Path) -> None:
    days = pa.array(events()["as_of"].astype(np.int32), pa.int32()).cast(pa.date32())
    path = parquet(tmp_path, as_of=days, promo=None)
    found = calibration_from_parquet(path, {**INPUTS, "promo": 8}, SCHEMA, allow_thin=True)
    assert float(found.as_of.min()) == 18_000  # type: ignore[union-attr]
    assert not found.columns["promo"].any()


def test_parquet_problems_are_told_per_column(tmp_path: Path) -> None:
    path = parquet(tmp_path, sales=["text"] * 1400, as_of=None)
    with pytest.raises(CalibrationError) as caught:
        calibration_from_parquet(path, INPUTS, SCHEMA)
    assert "column sales: got string, expected lists of 8 numbers" in str(caught.value)
    assert "column as_of: isn't there and the schema has no default" in str(caught.value)


def test_ragged_lists_and_other_files_are_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, sales=[[1.0] * 8] * 1399 + [[1.0]])
    with pytest.raises(CalibrationError, match="got 1 values in row 1399, expected lists of 8 numbers"):
        calibration_from_parquet(path, INPUTS, SCHEMA)
    path.write_bytes(b"no parquet")
    with pytest.raises(CalibrationError, match="can't be read as Parquet"):
        calibration_from_parquet(path, INPUTS, SCHEMA)
