"""Messages of our own schemas, one by one, as plain values: for tools that read what the worker wrote.

Logical types are dropped, as everywhere in the worker: dates are days and times milliseconds since 1970. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import cast

import fastavro

from worker.avro import RecordType, Schema, record_type_from_schema
from worker.avro_check import BadBytesError, Checker, Cursor, checker_of
from worker.errors import SchemaUnavailableError, UnreachableError
from worker.framing import Framing, Refusal
from worker.records import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """`resolved` is the reader's schema where it differs from the writer's."""

    record: RecordType
    check: Checker
    resolved: dict[str, object] | None


class FramedReader:
    """Reads values framed by `framing` as records of `schema`, whatever schema of the same record wrote them.

    Raises fastavro's own errors if `schema` isn't a valid record schema.
    """

    def __init__(self, schema: Schema, framing: Framing) -> None:
        self._reader = record_type_from_schema(schema)
        self._framing = framing
        self._writers: dict[bytes, _Writer] = {}

    def read(self, value: bytes) -> dict[str, object] | Refusal:
        """The record in `value`, or why there is none. May block while the framing asks for a schema.

        Raises `UnreachableError` if the registry can't be asked for the schema of this value.
        """
        prefix = value[: self._framing.prefix_bytes]
        if len(prefix) < self._framing.prefix_bytes:
            return Refusal(
                reason=Reason.TRUNCATED,
                detail=f"got {len(value)} bytes, expected a prefix of {self._framing.prefix_bytes} and a record",
            )
        writer = self._writers.get(prefix) or self._writer_of(prefix)
        return writer if isinstance(writer, Refusal) else self._content(writer, value)

    def _writer_of(self, prefix: bytes) -> _Writer | Refusal:
        try:
            schema = self._framing.schema_of(prefix)
        except SchemaUnavailableError as error:
            raise UnreachableError(f"{error}; check registry.url and whether the registry is up") from error
        if isinstance(schema, Refusal):
            return schema
        try:
            record = record_type_from_schema(schema)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign JSON: whatever the parser raises, it is no schema for us
            detail = f"writer schema {prefix.hex()} can't be used: {type(error).__name__}: {error}"
            return Refusal(reason=Reason.UNKNOWN_SCHEMA, detail=detail)
        is_same = record.parsed == self._reader.parsed
        writer = _Writer(record=record, check=checker_of(record), resolved=None if is_same else self._reader.parsed)
        self._writers[prefix] = writer
        return writer

    def _content(self, writer: _Writer, value: bytes) -> dict[str, object] | Refusal:
        cursor = Cursor(value, self._framing.prefix_bytes)
        try:
            writer.check(cursor)
        except BadBytesError as error:
            return error.refusal
        if cursor.at != cursor.end:
            detail = f"got {cursor.end - cursor.at} bytes behind the record, which ends at byte {cursor.at}"
            return Refusal(reason=Reason.TRAILING_BYTES, detail=detail)
        stream = BytesIO(value[self._framing.prefix_bytes :])
        try:
            found = fastavro.schemaless_reader(stream, writer.record.parsed, writer.resolved)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the bytes are sound, so whatever it raises is about the schemas
            detail = f"{writer.record.name} can't be read as {self._reader.name}: {type(error).__name__}: {error}"
            return Refusal(reason=Reason.MALFORMED, detail=detail)
        return cast("dict[str, object]", found)
