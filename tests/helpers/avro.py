"""Messages, columns and an oracle that shares no code with the worker: fastavro, called directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from worker.decode import Decoded, Decoder, _Writer
from worker.framing import Framing, SingleObjectFraming
from worker.records import Record, Records

Json = dict[str, Any]
GUARD_ROWS = 3
UNTOUCHED = np.float32(-12345.5)


def encoded(schema: Json, value: Json) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def records_of(values: Sequence[bytes | None], *, keys: Sequence[bytes | None] | None = None) -> Records:
    given = keys or [b"key"] * len(values)
    return Records.of(
        [
            Record(topic="features", partition=i % 3, offset=100 + i, timestamp_ms=1000 + i, key=key, value=value)
            for i, (key, value) in enumerate(zip(given, values, strict=True))
        ],
        topic="features",
    )


def columns_for(inputs: Mapping[str, int | None], rows: int) -> dict[str, NDArray[np.float32]]:
    """Columns with `GUARD_ROWS` more rows than asked for, before and after."""
    total = rows + 2 * GUARD_ROWS
    return {
        name: np.full(total if width is None else (total, width), UNTOUCHED, dtype=np.float32)
        for name, width in inputs.items()
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    """A writer, a reader, and what is read."""

    writer: Json
    reader: Json
    inputs: Mapping[str, int | None]
    key_fields: Sequence[str]
    echo_fields: Sequence[str]

    @cached_property
    def framing(self) -> SingleObjectFraming:
        return SingleObjectFraming([self.writer, self.reader])

    @cached_property
    def prefix(self) -> bytes:
        """What the writer's messages begin with. Its fingerprint costs more than all the rest of a message."""
        return self.framing.prefix_for(self.writer)

    def decoder(self, *, framing: Framing | None = None, max_value_bytes: int = 1 << 20) -> Decoder:
        return Decoder(
            reader_schema=self.reader,
            inputs=self.inputs,
            key_fields=self.key_fields,
            echo_fields=self.echo_fields,
            framing=framing or self.framing,
            max_value_bytes=max_value_bytes,
        )

    def message(self, value: Json) -> bytes:
        return self.prefix + encoded(self.writer, value)

    def is_fast(self) -> bool:
        return writer_of(self.decoder(), self.prefix).fast is not None


def writer_of(decoder: Decoder, prefix: bytes) -> _Writer:
    writer = decoder._writer_of(prefix)
    assert isinstance(writer, _Writer)
    return writer


def one_by_one(case: Case) -> Decoder:
    """A decoder that has no fast path."""
    decoder = case.decoder()
    prefix = case.prefix
    decoder._writers[prefix] = _Writer(plan=writer_of(decoder, prefix).plan, fast=None)
    return decoder


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `decode` gave, in a form that compares."""

    keys: list[bytes]
    echoes: list[bytes]
    sources: list[int]
    tombstones: list[int]
    rejections: list[tuple[int, str, str]]
    inputs: dict[str, list[Any]]


def decode(decoder: Decoder, case: Case, records: Records) -> Result:
    """Decodes, and checks what must hold for any input: one outcome per record, and no row touched that isn't ours."""
    columns = columns_for(case.inputs, len(records))
    decoded = decoder.decode(records, columns, GUARD_ROWS)
    check_outcomes(decoded, len(records))
    for column in columns.values():
        assert (column[:GUARD_ROWS] == UNTOUCHED).all()
        assert (column[GUARD_ROWS + len(records) :] == UNTOUCHED).all()
        assert np.isfinite(column[GUARD_ROWS : GUARD_ROWS + decoded.rows]).all()
    return Result(
        keys=decoded.keys,
        echoes=decoded.echoes,
        sources=decoded.sources.tolist(),
        tombstones=decoded.tombstones.tolist(),
        rejections=[(i, rejection.reason.value, rejection.detail) for i, rejection in decoded.rejections],
        inputs={name: column[GUARD_ROWS : GUARD_ROWS + decoded.rows].tolist() for name, column in columns.items()},
    )


def check_outcomes(decoded: Decoded, count: int) -> None:
    rejected = [index for index, _ in decoded.rejections]
    assert sorted([*decoded.sources.tolist(), *decoded.tombstones.tolist(), *rejected]) == list(range(count))
    assert decoded.sources.tolist() == sorted(decoded.sources.tolist())
    assert rejected == sorted(rejected)
    assert decoded.rows == len(decoded.sources) == len(decoded.keys) == len(decoded.echoes)


def oracle(case: Case, messages: Sequence[bytes]) -> Result:
    """What fastavro makes of good messages (each behind a prefix of 10 bytes)."""
    writer, reader = fastavro.parse_schema(case.writer), fastavro.parse_schema(case.reader)
    types = {field["name"]: field["type"] for field in case.reader["fields"]}
    rows: list[Json] = []
    for message in messages:
        stream = BytesIO(message[10:])
        row = fastavro.schemaless_reader(stream, writer, reader)
        assert isinstance(row, dict)
        assert stream.read() == b""
        rows.append(row)
    parts = [[_text(row[name]) for name in case.key_fields] for row in rows]
    return Result(
        keys=[b"|".join(each) for each in parts],
        echoes=[b"".join(_encoded_one(types[name], row[name]) for name in case.echo_fields) for row in rows],
        sources=list(range(len(rows))),
        tombstones=[],
        rejections=[],
        inputs={name: [np.float32(np.array(row[name])).tolist() for row in rows] for name in case.inputs},
    )


def _encoded_one(avro_type: Any, value: Any) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro_type), value)
    return out.getvalue()


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
