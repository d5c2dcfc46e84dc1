"""A poll's worth of Avro values -> rows of float32 that the caller owns, with keys and echoes, or a rejection each.

Records of one writer schema are read together where the schema allows; the others, and those that don't fit, one by one.
Both ways give the same rows: the fast one only ever accepts, and leaves the reasons to the slow one.
Pure: no Kafka, no clock, no registry (the framing has been given what it needs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.avro import RecordType, Schema, record_type_from_schema
from worker.avro_calendar import calendar_limits
from worker.avro_fast import FastReader
from worker.avro_plan import Plan, Reading, compile_plan
from worker.avro_scan import Rows
from worker.avro_slow import EchoEncoder, Row, SlowReader
from worker.errors import ContractError, SchemaUnavailableError
from worker.framing import Framing, Refusal
from worker.records import Reason, Records, Rejection

_KEY_TYPES = frozenset({"string", "bytes", "int", "long", "enum"})
_NUMBER_TYPES = frozenset({"boolean", "int", "long", "float", "double"})

_CHUNK_RECORDS = 1024
"""Enough to make numpy's cost per call small, and few enough that their bytes stay in a core's cache between passes."""

Columns = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What became of each record of a poll: every index is in exactly one of sources, tombstones and rejections.

    rows: rows written to the caller's columns, at [start, start + rows). sources: intp[rows], the record that each row
    came from, ascending. keys: each row's forecast key. echoes: each row's echo fields as Avro bytes.
    tombstones: intp[...], records with a key and a null value. rejections: by ascending index.
    """

    rows: int
    sources: NDArray[np.intp]
    keys: list[bytes]
    echoes: list[bytes]
    tombstones: NDArray[np.intp]
    rejections: list[tuple[int, Rejection]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Writer:
    """How to read one writer schema. `fast` is None if one by one."""

    plan: Plan
    fast: FastReader | None


@dataclass(slots=True, eq=False)
class _Outcome:
    """What is known so far of the records of one poll, by their index."""

    keys: list[bytes]
    echoes: list[bytes]
    is_row: NDArray[np.bool_]
    tombstones: list[int] = field(default_factory=list)
    refusals: list[tuple[int, Refusal]] = field(default_factory=list)


class Decodes(Protocol):
    """What the loop asks of a decoder."""

    def decode(self, records: Records, columns: Columns, start: int) -> Decoded:
        """See `Decoder.decode`."""
        ...


class Decoder:
    """Decodes polls for one model.

    reader_schema: the feature event as this worker understands it. inputs: the model's inputs by name, each a field of
    that schema: values per row, None for a scalar. key_fields: what makes the forecast's key, joined by `|`.
    echo_fields: what the forecast repeats of the event. Raises `ContractError` if these don't fit each other.
    """

    def __init__(
        self,
        *,
        reader_schema: Schema,
        inputs: Mapping[str, int | None],
        key_fields: Sequence[str],
        echo_fields: Sequence[str],
        framing: Framing,
        max_value_bytes: int,
    ) -> None:
        self._reading = Reading(
            inputs=dict(inputs),
            key_fields=tuple(key_fields),
            echo_fields=tuple(echo_fields),
            limits=calendar_limits(reader_schema, echo_fields),
        )
        self._reader = _checked_reader(reader_schema, self._reading)
        self._slow = SlowReader(self._reader, self._reading)
        self._framing = framing
        self._max_value_bytes = max_value_bytes
        self._writers: dict[bytes, _Writer] = {}

    def decode(self, records: Records, columns: Columns, start: int) -> Decoded:
        """Decode all of `records`; rows go to [start, start + rows) of `columns`, float32[max_rows, width] or [max_rows].

        Precondition: start + len(records) <= max_rows; these rows may all be written, no others are. Nothing is kept of
        `columns` or `records`. May block while the framing asks for a schema. Raises `SchemaUnavailableError`, with
        nothing written, if the schema of some records can't be found out now; `ValueError` if the precondition fails.
        """
        self._check_room(columns, start, len(records))
        outcome = _Outcome([b""] * len(records), [b""] * len(records), np.zeros(len(records), dtype=np.bool_))
        for writer, indices in self._groups(records, outcome):
            self._read_group(writer, indices, records, columns, start, outcome)
        return _finished(records, columns, start, outcome)

    def _check_room(self, columns: Columns, start: int, count: int) -> None:
        for name, width in self._reading.inputs.items():
            shape = columns[name].shape
            if start < 0 or start + count > shape[0] or shape[1:] != (() if width is None else (width,)):
                raise ValueError(
                    f"column {name}: got shape {shape}, expected room for {count} rows of {width} at {start}"
                )

    def _groups(self, records: Records, outcome: _Outcome) -> list[tuple[_Writer, Sequence[int]]]:
        """Records by writer schema, after those without one have been sorted out."""
        prefix_bytes = self._framing.prefix_bytes
        values = records.values
        sizes = [-1 if value is None else len(value) for value in values]
        indices: Sequence[int] = range(len(values))
        if sizes and not prefix_bytes <= min(sizes) <= max(sizes) <= self._max_value_bytes:
            indices = [i for i in indices if not self._is_odd(i, sizes[i], records, outcome)]
        prefixes = [(values[i] or b"")[:prefix_bytes] for i in indices]
        if prefixes and prefixes.count(prefixes[0]) == len(prefixes):
            return self._resolved({prefixes[0]: indices}, outcome)
        by_prefix: dict[bytes, list[int]] = {}
        for index, prefix in zip(indices, prefixes, strict=True):
            by_prefix.setdefault(prefix, []).append(index)
        return self._resolved(by_prefix, outcome)

    def _is_odd(self, index: int, size_bytes: int, records: Records, outcome: _Outcome) -> bool:
        """Whether a record is settled by its size alone (-1: null), and how."""
        if size_bytes == -1 and records.keys[index] is not None:
            outcome.tombstones.append(index)
        elif size_bytes == -1:
            detail = "got neither key nor value, expected a value (or a key alone: a tombstone)"
            outcome.refusals.append((index, Refusal(reason=Reason.NO_KEY_NO_VALUE, detail=detail)))
        elif size_bytes > self._max_value_bytes:
            detail = f"got a value of {size_bytes} bytes, expected {self._max_value_bytes} at most"
            outcome.refusals.append((index, Refusal(reason=Reason.OVERSIZE, detail=detail)))
        elif size_bytes < self._framing.prefix_bytes:
            detail = f"got {size_bytes} bytes, expected a prefix of {self._framing.prefix_bytes} and a record"
            outcome.refusals.append((index, Refusal(reason=Reason.TRUNCATED, detail=detail)))
        else:
            return False
        return True

    def _resolved(
        self, by_prefix: Mapping[bytes, Sequence[int]], outcome: _Outcome
    ) -> list[tuple[_Writer, Sequence[int]]]:
        groups: list[tuple[_Writer, Sequence[int]]] = []
        waiting: list[int] = []
        details: list[str] = []
        for prefix, indices in by_prefix.items():
            try:
                writer = self._writers.get(prefix) or self._writer_of(prefix)
            except SchemaUnavailableError as error:
                waiting.extend(indices)
                details.append(str(error))
                continue
            if isinstance(writer, Refusal):
                outcome.refusals.extend((index, writer) for index in indices)
            else:
                groups.append((writer, indices))
        if waiting:
            raise SchemaUnavailableError(sorted(waiting), "; ".join(dict.fromkeys(details)))
        return groups

    def _writer_of(self, prefix: bytes) -> _Writer | Refusal:
        schema = self._framing.schema_of(prefix)
        if isinstance(schema, Refusal):
            return schema
        try:
            written = record_type_from_schema(schema)
            plan = compile_plan(written, self._reader, self._reading)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - foreign JSON: whatever the parser raises, it is no schema for us
            detail = f"writer schema {prefix.hex()} can't be used: {type(error).__name__}: {error}"
            return Refusal(reason=Reason.UNKNOWN_SCHEMA, detail=detail)
        fast = None
        if plan.fast is not None:
            defaults = {name: plan.defaults[name] for name in self._reading.echo_fields if name in plan.defaults}
            echo_defaults = {name: EchoEncoder(self._reader, [name]).encode(defaults) for name in defaults}
            fast = FastReader(writer=written, plan=plan.fast, reading=self._reading, echo_defaults=echo_defaults)
        self._writers[prefix] = _Writer(plan=plan, fast=fast)
        return self._writers[prefix]

    def _read_group(
        self, writer: _Writer, indices: Sequence[int], records: Records, columns: Columns, start: int, outcome: _Outcome
    ) -> None:
        """Record i goes to row start + i for now; `_finished` closes the gaps."""
        rest = indices
        if writer.fast is not None:
            rest = []
            for first in range(0, len(indices), _CHUNK_RECORDS):
                chunk = indices[first : first + _CHUNK_RECORDS]
                rest.extend(self._read_chunk(writer.fast, chunk, records, columns, start, outcome))
        for index in rest:
            row = self._slow.read(writer.plan, records.values[index] or b"", self._framing.prefix_bytes)
            if isinstance(row, Row):
                outcome.keys[index], outcome.echoes[index], outcome.is_row[index] = row.key, row.echo, True
                for name, numbers in row.inputs.items():
                    columns[name][start + index] = numbers
            else:
                outcome.refusals.append((index, row))

    def _read_chunk(
        self,
        fast: FastReader,
        indices: Sequence[int],
        records: Records,
        columns: Columns,
        start: int,
        outcome: _Outcome,
    ) -> list[int]:
        """Read what can be read at once; gives the indices of the others."""
        first, end = indices[0], indices[-1] + 1
        if end - first == len(indices):
            values = records.values[first:end]
            rows: Rows = slice(start + first, start + end)
        else:
            values = [records.values[i] for i in indices]
            rows = np.asarray(indices, dtype=np.intp) + start
        found = fast.read([value or b"" for value in values], self._framing.prefix_bytes, columns, rows)
        if end - first == len(indices):
            outcome.keys[first:end], outcome.echoes[first:end] = found.keys, found.echoes
            outcome.is_row[first:end] = found.ok
        else:
            for index, key, echo in zip(indices, found.keys, found.echoes, strict=True):
                outcome.keys[index], outcome.echoes[index] = key, echo
            outcome.is_row[indices] = found.ok
        return [indices[i] for i in np.flatnonzero(~found.ok).tolist()]


def _finished(records: Records, columns: Columns, start: int, outcome: _Outcome) -> Decoded:
    """Move the accepted rows together, and put everything in order."""
    sources = np.flatnonzero(outcome.is_row)
    keys, echoes = outcome.keys, outcome.echoes
    if len(sources) != len(records):
        for column in columns.values():
            column[start : start + len(sources)] = column[start + sources]
        keys, echoes = [keys[i] for i in sources], [echoes[i] for i in sources]
    return Decoded(
        rows=len(sources),
        sources=sources,
        keys=keys,
        echoes=echoes,
        tombstones=np.array(outcome.tombstones, dtype=np.intp),
        rejections=[
            (index, Rejection(record=records[index], reason=refusal.reason, detail=refusal.detail))
            for index, refusal in sorted(outcome.refusals, key=lambda pair: pair[0])
        ],
    )


def _checked_reader(schema: Schema, reading: Reading) -> RecordType:
    try:
        reader = record_type_from_schema(schema)
    except Exception as error:  # the parser's own errors are many, and all mean the same here
        raise ContractError(f"feature schema isn't a valid Avro record: {type(error).__name__}: {error}") from error
    names = ", ".join(field.name for field in reader.fields)
    for name in (*reading.inputs, *reading.key_fields, *reading.echo_fields):
        if reader.field(name) is None:
            raise ContractError(f"field {name}: not in the feature schema {reader.name}; it has {names}")
    for each in reader.fields:
        if (limits := reading.limits.get(each.name)) and each.has_default:
            _check_default(each.name, each.default, limits)
        kinds = _types_of(each.type)
        if each.name in reading.key_fields and not kinds <= _KEY_TYPES:
            raise ContractError(f"key field {each.name}: got {sorted(kinds)}, expected one of {sorted(_KEY_TYPES)}")
        if each.name in reading.inputs:
            _check_input(each.name, each.type, reading.inputs[each.name])
    if not reading.key_fields:
        raise ContractError("got no key fields, expected at least one")
    return reader


def _check_default(name: str, default: object, limits: tuple[int, int]) -> None:
    if isinstance(default, int) and not limits[0] <= default <= limits[1]:
        raise ContractError(f"field {name}: got default {default}, expected {limits[0]} to {limits[1]}: a date")


def _check_input(name: str, avro_type: object, width: int | None) -> None:
    expected = "a number" if width is None else f"an array of numbers, {width} of them"
    if width is None:
        is_fit = _types_of(avro_type) <= _NUMBER_TYPES
    else:
        is_fit = all(
            isinstance(branch, dict) and branch["type"] == "array" and _types_of(branch["items"]) <= _NUMBER_TYPES
            for branch in _branches(avro_type)
        )
    if not is_fit or not _branches(avro_type):
        raise ContractError(
            f"field {name}: got Avro type {avro_type}, expected {expected}, as the model's input of that name"
        )


def _branches(avro_type: object) -> list[object]:
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    return [branch for branch in branches if branch != "null"]


def _types_of(avro_type: object) -> set[str]:
    """The names of a type's branches, without null."""
    return {str(branch["type"]) if isinstance(branch, dict) else str(branch) for branch in _branches(avro_type)}
