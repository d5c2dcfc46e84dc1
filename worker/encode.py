"""Forecast rows -> Avro messages with provenance, a batch at once; rejections -> dead letters. Pure.

A forecast message is `prefix + echo + rest`. The echo (the event's own fields, as Avro bytes) comes from decoding; the
rest is the same for all rows but for the numbers, so it is written as one matrix of bytes per batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import fastavro
import numpy as np
from numpy.typing import NDArray

from worker.avro import Schema, plain, record_type_from_schema, zigzag_varint
from worker.errors import ContractError
from worker.records import Header, Record, Rejection

_FLOATS = {"type": "array", "items": "float"}
_QUANTILES = "quantiles"
_REST: Mapping[str, object] = {
    "quantile_levels": _FLOATS,
    _QUANTILES: {"type": "array", "items": _FLOATS},
    "source_partition": "int",
    "source_offset": "long",
    "generated_at": "long",
    "model": "string",
    "model_version": "string",
    "engine_digest": "string",
    "precision": "string",
    "fallback_reason": ["null", "string"],
}

_MAX_VARINT_BYTES = 10
_MAX_DETAIL_CHARACTERS = 2000

LATEST_MS = 253_402_300_799_999
"""The end of the year 9999. Readers in several languages fail on a later time."""
MESSAGE_OVERHEAD_BYTES = 1024
"""Of a message beside key, value and headers, and of a dead letter's fields beside key, value and detail; more than it
can be.
"""
CUT_HEADER = "dead-letter-cut"
"""A dead letter's header that says what of the record it doesn't have in full: `key`, `headers`, or both with a comma."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the forecasts of a batch come from. `fallback_reason`: why not from the serving model, if so."""

    model: str
    model_version: str
    engine_digest: str
    precision: str
    fallback_reason: str | None


def echo_fields_of(feature_schema: Schema, forecast_schema: Schema) -> tuple[str, ...]:
    """The fields that a forecast repeats of its event: those it starts with that the event has too, by name and type.

    Raises `ContractError` if one has the event's name but another type.
    """
    types = {field.name: field.type for field in record_type_from_schema(feature_schema).fields}
    names: list[str] = []
    for field in record_type_from_schema(forecast_schema).fields:
        if field.name in _REST or field.name not in types:
            break
        if field.type != types[field.name]:
            raise ContractError(
                f"field {field.name} of the forecast schema: got {field.type}, expected {types[field.name]}, as in the "
                "feature schema; a forecast repeats the event's fields as they are"
            )
        names.append(field.name)
    return tuple(names)


class ForecastEncoder:
    """Encodes batches of one engine.

    schema: the forecast message: first `echo_fields`, in that order, then any of the fields this class knows (levels and
    quantiles, source position, provenance), in any order. prefix: what the framing puts before a value. quantiles: the
    engine's levels. horizon: days. Raises `ContractError` if the schema holds anything else.
    """

    def __init__(
        self, *, schema: Schema, prefix: bytes, echo_fields: Sequence[str], quantiles: Sequence[float], horizon: int
    ) -> None:
        self._prefix = prefix
        self._shape = (horizon, len(quantiles))
        self._rest = _checked_rest(schema, tuple(echo_fields))
        self._levels = _array_of([np.float32(level).tobytes() for level in quantiles])

    def encode(
        self,
        *,
        echoes: Sequence[bytes],
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
        values: NDArray[np.float32],
        provenance: Provenance,
        generated_at_ms: int,
    ) -> list[bytes]:
        """One message per row of `values`, float32[rows, horizon, quantiles]; nothing of the arguments is kept.

        echoes[rows], partitions[rows], offsets[rows]: each row's event. Raises `ValueError` if the sizes don't agree.
        """
        rows = len(echoes)
        if values.shape != (rows, *self._shape) or not len(partitions) == len(offsets) == rows:
            raise ValueError(
                f"got values {values.shape}, {len(partitions)} partitions, {len(offsets)} offsets, {rows} echoes; "
                f"expected values {(rows, *self._shape)} and {rows} of each"
            )
        constants = self._constants(provenance, generated_at_ms)
        numbers = {"source_partition": _varints(partitions), "source_offset": _varints(offsets)}
        # Rows whose numbers take equally many bytes have the same layout. A batch has one to three of them.
        layouts = numbers["source_partition"][1] * 16 + numbers["source_offset"][1]
        messages: list[bytes] = [b""] * rows
        for layout in np.unique(layouts):
            chosen = np.flatnonzero(layouts == layout)
            is_all = len(chosen) == rows
            part = numbers if is_all else {name: (raw[chosen], size[chosen]) for name, (raw, size) in numbers.items()}
            matrix = self._matrix(constants, part, values if is_all else values[chosen])
            blob, width, prefix = matrix.tobytes(), matrix.shape[1], self._prefix
            starts = range(0, len(blob), width)
            if is_all:
                return [prefix + echo + blob[at : at + width] for echo, at in zip(echoes, starts, strict=True)]
            for index, at in zip(chosen.tolist(), starts, strict=True):
                messages[index] = prefix + echoes[index] + blob[at : at + width]
        return messages

    def _constants(self, provenance: Provenance, generated_at_ms: int) -> dict[str, bytes]:
        reason = provenance.fallback_reason
        return {
            "quantile_levels": self._levels,
            "generated_at": zigzag_varint(generated_at_ms),
            "model": _text(provenance.model),
            "model_version": _text(provenance.model_version),
            "engine_digest": _text(provenance.engine_digest),
            "precision": _text(provenance.precision),
            "fallback_reason": zigzag_varint(0) if reason is None else zigzag_varint(1) + _text(reason),
        }

    def _matrix(
        self,
        constants: Mapping[str, bytes],
        numbers: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.int64]]],
        values: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """The rest of each message: uint8[rows, bytes]. Precondition: each of `numbers` has one length for all rows."""
        horizon, levels = self._shape
        template = bytearray()
        places: list[tuple[int, NDArray[np.uint8]]] = []
        quantiles_at = -1
        for name in self._rest:
            if name == _QUANTILES:
                quantiles_at = len(template)
                template += _array_of([_array_of([bytes(4)] * horizon)] * levels)
            elif name in numbers:
                raw, lengths = numbers[name]
                places.append((len(template), raw[:, : lengths[0]]))
                template += bytes(int(lengths[0]))
            else:
                template += constants[name]
        matrix = np.empty((len(values), len(template)), dtype=np.uint8)
        matrix[:] = np.frombuffer(template, dtype=np.uint8)
        for at, columns in places:
            matrix[:, at : at + columns.shape[1]] = columns
        at = quantiles_at + len(zigzag_varint(levels))
        for level in range(levels):
            at += len(zigzag_varint(horizon))
            matrix[:, at : at + 4 * horizon].view("<f4")[...] = values[:, :, level]
            at += 4 * horizon + 1
        return matrix


class DeadLetterEncoder:
    """Encodes rejections. schema: `schemas/dead_letter.avsc`, or one with the same fields.

    Values are cut to `max_value_bytes`, and a letter to what one message may have, its key and headers in front: a rejected
    record may be as large as a message can be, and its letter says more than it did. Raises `ContractError` if the schema
    wants a field that a rejection doesn't have.
    """

    def __init__(self, schema: Schema, prefix: bytes, max_value_bytes: int, max_message_bytes: int = 1_000_000) -> None:
        record = record_type_from_schema(schema)
        for field in record.fields:
            if field.name not in _LETTER_FIELDS and not field.has_default:
                raise ContractError(
                    f"field {field.name} of {record.name}: no dead letter has one; expected {', '.join(_LETTER_FIELDS)}"
                )
        self._parsed = record.parsed
        self._prefix = prefix
        self._max_value_bytes = max_value_bytes
        self._max_message_bytes = max_message_bytes

    def key(self, record: Record) -> bytes | None:
        """The letter's own key, and the one in it: the record's, or its first bytes if it takes up a quarter of a message."""
        return None if record.key is None else record.key[: self._max_message_bytes // 4]

    def headers(self, record: Record) -> list[Header]:
        """The letter's headers: the record's, or none of them if they take up a quarter of a message; and what was cut."""
        is_large = header_bytes(record.headers) > self._max_message_bytes // 4
        cut = ",".join(
            [*(["key"] if self.key(record) != record.key else []), *(["headers"] if is_large else [])]
        ).encode()
        kept = [] if is_large else [header for header in record.headers if header[0] != CUT_HEADER]
        return [*kept, (CUT_HEADER, cut)] if cut else kept

    def encode(self, rejection: Rejection, *, rejected_at_ms: int) -> bytes:
        """The message: the record's position and key, its value (or the start of it), reason and detail."""
        record = rejection.record
        value, key = record.value, self.key(record)
        detail = rejection.detail[:_MAX_DETAIL_CHARACTERS].encode(errors="replace").decode()
        if key != record.key:
            detail = f"{detail} (the key has {len(record.key or b'')} bytes; its first ones are kept)"
        spent_bytes = 2 * len(key or b"") + len(detail.encode()) + len(self._prefix) + 2 * MESSAGE_OVERHEAD_BYTES
        spent_bytes += header_bytes(self.headers(record))
        room_bytes = max(0, min(self._max_value_bytes, self._max_message_bytes - spent_bytes))
        letter = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp_ms if 0 <= record.timestamp_ms <= LATEST_MS else None,
            "key": key,
            "value": None if value is None else value[:room_bytes],
            "value_bytes": -1 if value is None else len(value),
            "reason": str(rejection.reason),
            "detail": detail,
            "rejected_at": rejected_at_ms,
        }
        out = BytesIO()
        fastavro.schemaless_writer(out, self._parsed, letter)
        return self._prefix + out.getvalue()


_LETTER_FIELDS = (
    *("topic", "partition", "offset", "timestamp", "key", "value", "value_bytes"),
    *("reason", "detail", "rejected_at"),
)


def header_bytes(headers: Sequence[Header]) -> int:
    """What `headers` take up in a message, at most: names, values, and two lengths each."""
    return sum(len(name.encode(errors="replace")) + len(value or b"") + 10 for name, value in headers)


def _checked_rest(schema: Schema, echo_fields: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the fields behind the echo. Raises `ContractError`."""
    record = record_type_from_schema(schema)
    names = tuple(field.name for field in record.fields)
    count = len(echo_fields)
    if names[:count] != echo_fields:
        raise ContractError(
            f"{record.name}: starts with {names[:count]}, expected the event's {echo_fields}, in that order"
        )
    for field in record.fields[count:]:
        if field.name not in _REST:
            raise ContractError(f"{record.name}: field {field.name} is unknown, expected one of {', '.join(_REST)}")
        if field.type != _REST[field.name]:
            raise ContractError(
                f"{record.name}: field {field.name}: got {field.type}, expected {plain(_REST[field.name])}"
            )
    if _QUANTILES not in names[count:]:
        raise ContractError(f"{record.name}: got no field {_QUANTILES}, expected one, an array of arrays of float")
    return names[count:]


def _varints(numbers: NDArray[np.int32] | NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Each number as Avro writes it: uint8[rows, 10], of which the first int64[rows] bytes count."""
    wide = numbers.astype(np.int64)
    rest = ((wide << 1) ^ (wide >> 63)).view(np.uint64)
    shifts = 7 * np.arange(_MAX_VARINT_BYTES, dtype=np.uint64)
    septets = rest[:, None] >> shifts
    is_last = septets < 0x80
    lengths = is_last.argmax(axis=1) + 1
    raw = (septets & np.uint64(0x7F)).astype(np.uint8)
    raw[~is_last] |= 0x80
    return raw, lengths


def _text(text: str) -> bytes:
    raw = text.encode()
    return zigzag_varint(len(raw)) + raw


def _array_of(items: Sequence[bytes]) -> bytes:
    """An Avro array: its count, its items, and a zero for "no more blocks"."""
    return (zigzag_varint(len(items)) + b"".join(items) if items else b"") + b"\x00"
