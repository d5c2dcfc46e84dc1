"""One message at a time through fastavro with schema resolution: the reference, and the one place that says why not.

Everything that the fast path doesn't accept comes here, so a reason code has one origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import cast

import fastavro
import numpy as np
from numpy.typing import NDArray

from worker.avro import RecordType, plain, record_type_from_schema
from worker.avro_check import BadBytesError, Cursor
from worker.avro_fast import KEY_SEPARATOR, is_good_key
from worker.avro_plan import Plan, Reading
from worker.framing import Refusal
from worker.records import Reason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One decoded message. `inputs`: float32[width], or float32[] for a scalar."""

    key: bytes
    echo: bytes
    inputs: Mapping[str, NDArray[np.float32]]


class _RefusedError(Exception):
    """Carries a refusal out of nested calls."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refusal = Refusal(reason=reason, detail=detail)
        super().__init__(detail)


class SlowReader:
    """Reads any message of any writer schema as the reader's record."""

    def __init__(self, reader: RecordType, reading: Reading) -> None:
        self._reader = reader
        self._reading = reading
        self._echo = EchoEncoder(reader, reading.echo_fields)

    def read(self, plan: Plan, value: bytes, prefix_bytes: int) -> Row | Refusal:
        """The row in `value` behind its prefix, or why there is none."""
        if plan.refusal is not None:
            return plan.refusal
        cursor = Cursor(value, prefix_bytes)
        try:
            plan.check(cursor)
            if cursor.at != cursor.end:
                detail = f"got {cursor.end - cursor.at} bytes behind the record, which ends at byte {cursor.at}"
                return Refusal(reason=Reason.TRAILING_BYTES, detail=detail)
            record = self._resolved(plan, value[prefix_bytes:])
            self._check_calendar(record)
            return Row(
                key=self._key(record),
                echo=self._echo.encode(record),
                inputs={name: _numbers(name, record[name], width) for name, width in self._reading.inputs.items()},
            )
        except (BadBytesError, _RefusedError) as error:
            return error.refusal

    def _resolved(self, plan: Plan, message: bytes) -> dict[str, object]:
        try:
            record = fastavro.schemaless_reader(BytesIO(message), plan.writer.parsed, self._reader.parsed)
        except MemoryError:
            raise
        except Exception as error:  # the bytes are sound, so whatever it raises is about these two schemas
            raise _RefusedError(
                Reason.MALFORMED,
                f"{plan.writer.name} as written can't be read as {self._reader.name}: {type(error).__name__}: {error}",
            ) from error
        return {**cast("dict[str, object]", record), **plan.defaults}

    def _check_calendar(self, record: Mapping[str, object]) -> None:
        for name, (least, greatest) in self._reading.limits.items():
            number = record[name]
            if isinstance(number, int) and not least <= number <= greatest:
                raise _RefusedError(
                    Reason.OUT_OF_CALENDAR,
                    f"field {name}: got {number}, expected {least} to {greatest}: a date in the years 1 to 9999",
                )

    def _key(self, record: Mapping[str, object]) -> bytes:
        parts = [_key_part(record[name]) for name in self._reading.key_fields]
        if is_good_key(parts):
            return KEY_SEPARATOR.join(parts)
        named = ", ".join(f"{name}={record[name]!r}" for name in self._reading.key_fields)
        raise _RefusedError(
            Reason.BAD_KEY, f"got {named:.200}, expected no empty part and no {KEY_SEPARATOR.decode()!r} in one"
        )


class EchoEncoder:
    """Encodes the echo fields of a resolved record as the reader's schema has them."""

    def __init__(self, reader: RecordType, names: Sequence[str]) -> None:
        by_name = {field.name: field for field in reader.fields}
        self._names = names
        fields = [{"name": name, "type": plain(by_name[name].type)} for name in names]
        self._parsed = record_type_from_schema({"type": "record", "name": "Echo", "fields": fields}).parsed

    def encode(self, record: Mapping[str, object]) -> bytes:
        """The fields' bytes, one behind the other."""
        out = BytesIO()
        fastavro.schemaless_writer(out, self._parsed, {name: record[name] for name in self._names})
        return out.getvalue()


def _key_part(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace")
    return b"%d" % value if isinstance(value, int) else b""


def _numbers(name: str, value: object, width: int | None) -> NDArray[np.float32]:
    """`value` as float32, checked. Raises `_RefusedError`."""
    if value is None or (isinstance(value, list) and None in value):
        raise _RefusedError(Reason.MISSING_FIELD, f"field {name}: got null, expected {_expected(width)}")
    if width is not None:
        got = len(value) if isinstance(value, list) else 1
        if got != width:
            raise _RefusedError(Reason.WRONG_LENGTH, f"field {name}: got {got} values, expected {width}")
    elif isinstance(value, list):
        raise _RefusedError(Reason.WRONG_LENGTH, f"field {name}: got {len(value)} values, expected {_expected(width)}")
    numbers = _float32(value)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        found = value[bad[0]] if isinstance(value, list) else value
        place = f"{name}[{bad[0]}]" if isinstance(value, list) else name
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise _RefusedError(Reason.NOT_FINITE, f"field {place}: got {found}{more}, expected a finite float32")
    return numbers


def _float32(value: object) -> NDArray[np.float32]:
    """Integers go to float32 in one rounding, as the fast path does."""
    items = value if isinstance(value, list) else [value]
    exact = all(isinstance(item, int) for item in items)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.asarray(value, dtype=np.int64 if exact else np.float64).astype(np.float32)
    return np.asarray(numbers)


def _expected(width: int | None) -> str:
    return "a number" if width is None else f"{width} numbers"
