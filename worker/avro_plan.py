"""How to read what one writer schema wrote: many records at once where its shape allows, else one by one.

A *fast plan* exists for a flat record of texts, numbers and arrays of floats whose fields mean the same to writer and
reader. It is a list of steps in writer order. Fields of a size known beforehand (numbers of fixed size, and arrays that
the model wants at a given width) are gathered in blocks: one copy per block, however many fields are in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from worker.avro import Field, Kind, RecordType, zigzag_varint
from worker.avro_check import Checker, checker_of
from worker.framing import Refusal
from worker.records import Reason

_KEY_KINDS = frozenset({Kind.STRING, Kind.BYTES, Kind.INT, Kind.LONG})
# Floats are left out: the slow path reads and writes them, which may change the payload of a NaN.
_ECHO_KINDS = _KEY_KINDS | {Kind.BOOLEAN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the worker wants of a record: the names that the model, the key and the output take from it.

    limits: the least and the greatest number that an echo field may have, for those that are dates or times.
    """

    inputs: Mapping[str, int | None]
    key_fields: tuple[str, ...]
    echo_fields: tuple[str, ...]
    limits: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStep:
    """A string or bytes: a length, then that many bytes."""

    name: str
    is_utf8: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VarintStep:
    """An int or a long. `bits`: 32 or 64."""

    name: str
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayStep:
    """An array of numbers that nobody wants: a count, the items, a zero."""

    name: str
    item_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A field in a block: `count` numbers of `kind` from byte `offset` of the block."""

    name: str
    kind: Kind
    offset: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStep:
    """Consecutive fields of known size. `marks`: (offset, byte) that must be found, or the record isn't of that shape."""

    size_bytes: int
    parts: tuple[Part, ...]
    marks: tuple[tuple[int, int], ...]


Step: TypeAlias = TextStep | VarintStep | ArrayStep | BlockStep


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPlan:
    """`steps` in writer order; `constants`: inputs that the writer doesn't send, with the reader's default."""

    steps: tuple[Step, ...]
    constants: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """How to read one writer schema. `fast` is None if its records are read one by one.

    `check` walks a message of it. `defaults`: values of the reader's fields that the writer doesn't have. `refusal`: set
    if no record of this schema can be read.
    """

    writer: RecordType
    check: Checker
    defaults: Mapping[str, object]
    fast: FastPlan | None
    refusal: Refusal | None


def compile_plan(writer: RecordType, reader: RecordType, reading: Reading) -> Plan:
    """How to read `writer`'s messages as `reader`'s records. Doesn't fail: what can't be read has a `refusal`."""
    sent = {field.name for field in writer.fields}
    absent = [field for field in reader.fields if not sent.intersection({field.name, *field.aliases})]
    missing = [field.name for field in absent if not field.has_default]
    refusal = None
    if missing:
        refusal = Refusal(
            reason=Reason.MISSING_FIELD,
            detail=f"writer schema {writer.name} lacks {', '.join(missing)}, which has no default in {reader.name}; "
            f"got fields {', '.join(sorted(sent))}",
        )
    return Plan(
        writer=writer,
        check=checker_of(writer),
        defaults={field.name: field.default for field in absent if field.has_default},
        fast=None if refusal else _fast_plan(writer, reader, reading, absent),
        refusal=refusal,
    )


def _fast_plan(writer: RecordType, reader: RecordType, reading: Reading, absent: Sequence[Field]) -> FastPlan | None:
    constants = {field.name: field.default for field in absent if field.name in reading.inputs}
    unsent = {field.name for field in absent}
    kinds = {field.name: field.kind for field in writer.fields}
    is_fast = (
        _is_same_shape(writer, reader)
        and all(_fits(value, reading.inputs[name]) for name, value in constants.items())
        and all(kinds.get(name) in _KEY_KINDS for name in reading.key_fields)
        and all(kinds[name] in _ECHO_KINDS for name in reading.echo_fields if name not in unsent)
        and all(_is_input(kinds[name], width) for name, width in reading.inputs.items() if name not in unsent)
    )
    return FastPlan(steps=tuple(_steps(writer.fields, reading.inputs)), constants=constants) if is_fast else None


def _is_same_shape(writer: RecordType, reader: RecordType) -> bool:
    """Whether resolution comes down to names: same record, every field fast, no alias, no promotion."""
    if writer.name.rpartition(".")[2] != reader.name.rpartition(".")[2] or reader.aliases:
        return False
    if any(field.aliases for field in reader.fields):
        return False
    of_reader = {field.name: field.type for field in reader.fields}
    return all(
        field.kind is not None and of_reader.get(field.name, field.type) == field.type for field in writer.fields
    )


def _is_input(kind: Kind | None, width: int | None) -> bool:
    return kind is not None and (kind.is_number if width is None else kind.is_array)


def _fits(value: object, width: int | None) -> bool:
    """Whether a default needs no rejection: finite numbers that float32 holds, as many as the model wants."""
    numbers = [value] if width is None else value
    if not isinstance(numbers, list) or (width is not None and len(numbers) != width):
        return False
    return all(isinstance(number, int | float) and abs(number) < 3e38 for number in numbers)


def _steps(fields: Sequence[Field], inputs: Mapping[str, int | None]) -> list[Step]:
    steps: list[Step] = []
    block: list[Field] = []
    for field in fields:
        kind = field.kind
        if kind is None:
            raise ValueError(f"field {field.name} isn't fast")
        if field.name in inputs if kind.is_array else kind.item_bytes:
            block.append(field)
            continue
        if block:
            steps.append(_block(block, inputs))
            block = []
        if kind.is_array:
            steps.append(ArrayStep(name=field.name, item_bytes=kind.item_bytes))
        elif kind in {Kind.STRING, Kind.BYTES}:
            steps.append(TextStep(name=field.name, is_utf8=kind is Kind.STRING))
        else:
            steps.append(VarintStep(name=field.name, bits=32 if kind is Kind.INT else 64))
    if block:
        steps.append(_block(block, inputs))
    return steps


def _block(fields: Sequence[Field], inputs: Mapping[str, int | None]) -> BlockStep:
    parts: list[Part] = []
    marks: list[tuple[int, int]] = []
    at = 0
    for field in fields:
        kind = field.kind
        if kind is None:
            raise ValueError(f"field {field.name} isn't fast")
        count = inputs[field.name] if kind.is_array else 1
        items = count or 0
        # An array is its count, its items, and a zero for "no more blocks"; an empty one is that zero alone.
        header = zigzag_varint(items) if kind.is_array and items else b""
        marks.extend((at + i, byte) for i, byte in enumerate(header))
        at += len(header)
        parts.append(Part(name=field.name, kind=kind, offset=at, count=items))
        at += items * kind.item_bytes
        if kind.is_array:
            marks.append((at, 0))
            at += 1
    return BlockStep(size_bytes=at, parts=tuple(parts), marks=tuple(marks))
