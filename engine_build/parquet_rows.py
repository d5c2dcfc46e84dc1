"""Rows of feature events from a Parquet file: a column per event field, numbers or lists of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine_build.errors import CalibrationError, EvaluationError
from engine_build.onnx_run import FloatArray

RowsError = type[CalibrationError] | type[EvaluationError]

_EPOCH_TYPES: Final = (pa.types.is_date, pa.types.is_timestamp)


def read_columns(
    path: Path, widths: Mapping[str, int | None], schema: Mapping[str, Any], *, error: RowsError
) -> dict[str, FloatArray]:
    """Name -> float32[rows, width], or float32[rows] for a width of None, of a Parquet file.

    Dates and timestamps become days since 1970-01-01. A field that the file doesn't have takes its default from the Avro
    record `schema`; NaN stands for what is null. Raises `error` that lists every column that is missing or of another shape.
    """
    defaults = {field["name"]: field["default"] for field in schema["fields"] if "default" in field}
    try:
        file = pq.ParquetFile(path)
        there = set(file.schema_arrow.names)
        table = file.read(columns=[name for name in widths if name in there])
    except (OSError, pa.ArrowException) as exception:
        raise error(
            str(path), [f"can't be read as Parquet: {exception}; expected a column per event field"]
        ) from exception
    problems: list[str] = []
    columns: dict[str, FloatArray] = {}
    if table.num_rows == 0:
        raise error(str(path), [f"got no rows (columns {', '.join(sorted(there))}), expected a row per event"])
    for name, width in widths.items():
        try:
            columns[name] = _column(table, name, width, defaults)
        except (ValueError, pa.ArrowException) as exception:
            problems.append(f"column {name}: {exception}")
    if problems:
        raise error(str(path), problems)
    return columns


def _column(table: pa.Table, name: str, width: int | None, defaults: Mapping[str, Any]) -> FloatArray:
    expected = "numbers" if width is None else f"lists of {width} numbers"
    rows = table.num_rows
    if name not in table.column_names:
        if name not in defaults:
            raise ValueError(f"isn't there and the schema has no default for it; expected {expected}")
        return filled(defaults[name], width, rows)
    column = table.column(name).combine_chunks()
    if width is None:
        return _numbers(column, expected)
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"got {kind}, expected {expected}")
    if column.null_count:
        raise ValueError(f"got {column.null_count:,} nulls, expected {expected} in every row")
    lengths = np.asarray(column.value_lengths())
    if (lengths != width).any():
        first = int(np.argmax(lengths != width))
        raise ValueError(f"got {int(lengths[first])} values in row {first}, expected {expected}")
    return _numbers(column.flatten(), expected).reshape(rows, width)


def _numbers(column: pa.Array, expected: str) -> FloatArray:
    kind = column.type
    if any(test(kind) for test in _EPOCH_TYPES):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
        return np.asarray(column.to_numpy(zero_copy_only=False) / 86_400_000, np.float32)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"got {kind}, expected {expected}")
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)


def filled(default: object, width: int | None, rows: int) -> FloatArray:
    """`rows` rows of a field's default. Raises `ValueError` if the default has another number of values than `width`."""
    values = np.asarray(default, np.float32)
    if values.shape != (() if width is None else (width,)):
        raise ValueError(f"the schema's default has shape {values.shape}, expected {width} values")
    return np.broadcast_to(values, (rows, *values.shape)).copy()
