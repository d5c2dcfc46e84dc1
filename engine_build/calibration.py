"""The rows that INT8 ranges are taken from: checked, sampled, and named by a digest.

Rows come from a Parquet file (`parquet_rows.py`) or from the topic itself (`topic_rows.py`). A column of which every row is
the same is refused, as its range would be wrong for any other value; it is let pass if it is the schema's default (this
deployment has no such covariate, and serving will feed that very value) or was named by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine_build.coverage import VOLUME_CLASSES, Coverage, coverage_of, volume_classes
from engine_build.errors import CalibrationError
from engine_build.onnx_run import Columns, FloatArray
from engine_build.parquet_rows import read_columns

DEFAULT_ROWS: Final = 2048
DAY: Final = "as_of"
VOLUME: Final = "sales"
SPECIAL: Final = ("promo", "holiday", "promo_next", "holiday_next")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Rows to calibrate with. columns: the model's inputs. as_of: float32[rows], days since 1970-01-01; None if unknown.

    digest: sha256 (hex) over the rows' canonical bytes: names and shapes, then rows in ascending order of their bytes, so the
    order in which they were read doesn't matter. coverage: of these rows.
    """

    columns: Columns
    as_of: FloatArray | None
    digest: str
    coverage: Coverage

    def __len__(self) -> int:
        return self.coverage.rows


def wanted_fields(inputs: Mapping[str, int | None], schema: Mapping[str, Any]) -> dict[str, int | None]:
    """Field -> width: the model's inputs, and what coverage is judged by, where the schema has it."""
    fields = {field["name"]: field for field in schema["fields"]}
    wanted = dict(inputs)
    if DAY in fields:
        wanted.setdefault(DAY, None)
    for name in SPECIAL:
        if name in fields and name not in wanted and "default" in fields[name]:
            wanted[name] = len(fields[name]["default"])
    return wanted


def calibration_from_parquet(
    path: Path,
    inputs: Mapping[str, int | None],
    schema: Mapping[str, Any],
    **options: Any,  # noqa: ANN401 - those of `calibration_of`
) -> Calibration:
    """Calibration rows from a Parquet file with a column per event field; `options` as in `calibration_of`."""
    columns = read_columns(path, wanted_fields(inputs, schema), schema, error=CalibrationError)
    return calibration_of(columns, inputs, schema, source=str(path), **options)


def calibration_of(
    columns: Columns,
    inputs: Mapping[str, int | None],
    schema: Mapping[str, Any],
    *,
    source: str,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    allow_thin: bool = False,
    allow_constant: Collection[str] = (),
) -> Calibration:
    """At most `rows` of the events in `columns`, spread evenly over days and volume classes; the same `seed`, the same rows.

    columns: at least `inputs`, float32. Raises `CalibrationError` with every problem: values that aren't finite, constant columns
    not in `allow_constant`, and (unless `allow_thin`) everything of which there is too little.
    """
    problems = [*_not_finite(columns), *_constant(columns, inputs, schema, allow_constant)]
    if problems:
        raise CalibrationError(source, problems)
    ordered = _ordered(columns)
    classes = volume_classes(ordered[VOLUME]) if VOLUME in ordered else None
    chosen = _sample(ordered, classes, rows, seed)
    sample = {name: values[chosen] for name, values in ordered.items()}
    coverage = coverage_of(sample, None if classes is None else classes[chosen], _special(sample, schema))
    missing = coverage.missing()
    if missing and not allow_thin:
        remedy = "take more days or series, or calibrate with --allow-thin-calibration at the risk of wrong ranges"
        raise CalibrationError(
            source, [f"too thin: {each}" for each in missing[:-1]] + [f"too thin: {missing[-1]}; {remedy}"]
        )
    taken = {name: sample[name] for name in inputs}
    return Calibration(columns=taken, as_of=sample.get(DAY), digest=digest_of(taken), coverage=coverage)


def digest_of(columns: Columns) -> str:
    """SHA-256 (hex) of rows, whatever their order: names and widths, then sorted rows of little-endian float32."""
    names = sorted(columns)
    shape = ";".join(f"{name}:{','.join(map(str, columns[name].shape[1:]))}" for name in names)
    lines = _row_bytes({name: columns[name] for name in names})
    return hashlib.sha256(shape.encode() + b"\n" + np.sort(lines).tobytes()).hexdigest()


def _row_bytes(columns: Columns) -> NDArray[np.void]:
    """Each row as one value of raw bytes; -0.0 counts as 0.0."""
    blocks = [
        np.asarray(values, "<f4").reshape(len(values), -1) + np.float32(0) for _, values in sorted(columns.items())
    ]
    matrix = np.ascontiguousarray(np.hstack(blocks))
    return matrix.view(np.dtype(f"S{matrix.shape[1] * 4}")).reshape(-1)


def _ordered(columns: Columns) -> dict[str, FloatArray]:
    """Rows in the order of their bytes, so that a sample depends on the set of rows and not on how they came."""
    order = np.argsort(_row_bytes(columns), kind="stable")
    return {name: values[order] for name, values in columns.items()}


def _sample(columns: Columns, classes: NDArray[np.int64] | None, rows: int, seed: int) -> NDArray[np.int64]:
    """Ascending places of at most `rows` rows: turn by turn one from each pair of day and volume class, at random within."""
    count = len(next(iter(columns.values())))
    if count <= rows:
        return np.arange(count)
    days = columns[DAY].astype(np.int64) if DAY in columns else np.zeros(count, np.int64)
    stratum = days * VOLUME_CLASSES + (0 if classes is None else classes)
    shuffled = np.random.default_rng(seed).permutation(count)
    by_stratum = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    sorted_strata = stratum[by_stratum]
    starts = np.flatnonzero(np.diff(sorted_strata, prepend=sorted_strata[0] - 1))
    lengths = np.diff(np.append(starts, count))
    turn = np.arange(count) - np.repeat(starts, lengths)
    return np.sort(by_stratum[np.lexsort((shuffled, turn))[:rows]])


def _special(columns: Columns, schema: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Rows with a day that differs from 'nothing special'."""
    defaults = {field["name"]: field.get("default") for field in schema["fields"]}
    flags = [
        (columns[name] != np.asarray(defaults[name], np.float32)).any(axis=1)
        for name in SPECIAL
        if name in columns and defaults.get(name) is not None
    ]
    return np.logical_or.reduce(flags) if flags else None


def _not_finite(columns: Columns) -> list[str]:
    problems = []
    for name, values in columns.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            first = int(np.argmax(bad))
            problems.append(
                f"column {name}: {int(bad.sum()):,} rows hold NaN or infinity, first row {first}; drop or fill them"
            )
    return problems


def _constant(
    columns: Columns, inputs: Mapping[str, int | None], schema: Mapping[str, Any], allowed: Collection[str]
) -> list[str]:
    defaults = {field["name"]: field.get("default") for field in schema["fields"]}
    problems = []
    for name in inputs:
        values = columns[name]
        if name in allowed or (values != values[0]).any():
            continue
        default = defaults.get(name)
        if default is None or not np.array_equal(np.asarray(default, np.float32), values[0]):
            shown = float(np.ravel(values[0])[0])
            problems.append(
                f"column {name}: all {len(values):,} rows are the same (first value {shown:g}), expected it to vary as in "
                f"production; mend the data, or pass --allow-constant {name} if it is always so"
            )
    return problems
