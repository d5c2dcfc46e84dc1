"""Values in Avro single-object encoding by fastavro: two marker bytes, the schema's fingerprint, the record.

With a schema registry, take its client's AvroSerializer and AvroDeserializer in place of this file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import fastavro

from demo.events import single_object_header
from schemas.load import Schema

_HEADER_BYTES: Final = 10


class ForeignValueError(ValueError):
    """A value that wasn't written with the schema. The message says what it begins with, or what fastavro says."""


class SingleObject:
    """Encodes and decodes records of one schema. Dates and times are plain numbers, as they are on the wire."""

    def __init__(self, schema: Schema) -> None:
        self._header = single_object_header(schema)
        self._schema = fastavro.parse_schema(plain_dates(schema))

    def encode(self, record: Mapping[str, object]) -> bytes:
        """The value of a message. Raises `ValueError` or `TypeError` if a field is missing or doesn't fit."""
        out = io.BytesIO(self._header)
        out.seek(_HEADER_BYTES)
        fastavro.schemaless_writer(out, self._schema, dict(record), strict=True)
        return out.getvalue()

    def decode(self, value: bytes) -> dict[str, Any]:
        """The record in a message's value. Raises `ForeignValueError` if it isn't one of the schema."""
        if value[:_HEADER_BYTES] != self._header:
            raise ForeignValueError(
                f"got a value that begins with {value[:_HEADER_BYTES].hex(' ')}, expected {self._header.hex(' ')}"
            )
        body = io.BytesIO(value)
        body.seek(_HEADER_BYTES)
        try:
            record = fastavro.schemaless_reader(body, self._schema, None)
        except (EOFError, ValueError, IndexError, OverflowError, TypeError) as error:
            raise ForeignValueError(f"{type(error).__name__} while it was read: {error}") from error
        if not isinstance(record, dict) or body.tell() != len(value):
            raise ForeignValueError(f"got {len(value)} bytes, but the record ends after {body.tell()}")
        return record


def plain_dates(schema: object) -> Any:  # noqa: ANN401 - an Avro schema is a str, a list or a dict
    """The schema without logical types."""
    if isinstance(schema, Mapping):
        return {key: plain_dates(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [plain_dates(value) for value in schema]
    return schema
