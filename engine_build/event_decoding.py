"""Feature events in either framing -> the fields of a row. Slow and plain: some thousand events are enough to calibrate."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import fastavro
import fastavro.schema
import numpy as np

from engine_build.onnx_run import FloatArray
from schemas.load import Schema, schema_from_text

_SINGLE_OBJECT: Final = b"\xc3\x01"
_CONFLUENT: Final = b"\x00"

RegisteredSchema = Callable[[int], str]
"""Schema id -> the schema's JSON."""


class EventDecoder:
    """Decodes values by the writer schema that their first bytes name, resolved to `reader`.

    writers: schemas of single-object framing besides `reader`. registered: asks a registry, for Confluent framing.
    """

    def __init__(
        self, reader: Schema, writers: Sequence[Schema] = (), registered: RegisteredSchema | None = None
    ) -> None:
        self._reader = fastavro.parse_schema(reader)
        self._registered = registered
        self._writers = {fingerprint(schema): fastavro.parse_schema(schema) for schema in (reader, *writers)}

    def decode(self, value: bytes) -> Mapping[str, Any] | None:
        """The event in `value`; None if it can't be decoded: unknown schema, bytes missing or left over."""
        try:
            writer, start = self._writer(value)
            if writer is None:
                return None
            body = io.BytesIO(value[start:])
            event: Any = fastavro.schemaless_reader(body, writer, self._reader)
            # fastavro accepts trailing bytes silently.
            return event if isinstance(event, dict) and not body.read(1) else None
        except (ValueError, TypeError, LookupError, EOFError, ArithmeticError, fastavro.read.SchemaResolutionError):
            return None

    def _writer(self, value: bytes) -> tuple[Any, int]:
        if value.startswith(_SINGLE_OBJECT):
            return self._writers.get(value[:10]), 10
        if value.startswith(_CONFLUENT) and self._registered is not None and len(value) > 5:
            name = value[:5]
            if name not in self._writers:
                text = self._registered(int.from_bytes(name[1:], "big"))
                self._writers[name] = fastavro.parse_schema(schema_from_text(text, f"schema id {name.hex()}"))
            return self._writers[name], 5
        return None, 0


def fingerprint(schema: Schema) -> bytes:
    """The first ten bytes of an event in single-object framing: C3 01 and the CRC-64-AVRO fingerprint, little-endian."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return _SINGLE_OBJECT + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def columns_of(
    events: Sequence[Mapping[str, Any]], widths: Mapping[str, int | None]
) -> tuple[dict[str, FloatArray], int]:
    """Name -> float32[rows, width] (float32[rows] for None) of the events that have every field so wide, and how many hadn't."""
    rows: list[list[FloatArray]] = []
    for event in events:
        row = [_number(event.get(name), width) for name, width in widths.items()]
        if all(each is not None for each in row):
            rows.append([each for each in row if each is not None])
    columns = {
        name: np.stack([row[place] for row in rows]) if rows else np.empty((0,), np.float32)
        for place, name in enumerate(widths)
    }
    return columns, len(events) - len(rows)


def _number(value: object, width: int | None) -> FloatArray | None:
    if hasattr(value, "toordinal"):
        value = value.toordinal() - 719_163  # of 1970-01-01: fastavro gives dates for the logical type
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (() if width is None else (width,)) else None
