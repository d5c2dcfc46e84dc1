"""Runs a fast plan over many messages at once. It only ever accepts: what it can't accept is left for the slow path.

One cursor per message moves through the joined bytes of all of them. A message that breaks a rule (bounds, sign, shape,
canonical numbers) loses its place in `ok`, and its cursor is sent to byte 0, where all reads are safe, so no rule needs
to ask twice. Values of messages that aren't `ok` are garbage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from worker.avro import Kind
from worker.avro_plan import ArrayStep, BlockStep, FastPlan, Part, TextStep, VarintStep

_MAX_VARINT_BYTES = 10

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rows = slice | NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a field lies in the joined bytes, a text's length with it. Both int64[messages]."""

    start: Longs
    end: Longs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found, by field: where it lies, the texts themselves, and the integers, int64[messages]."""

    data: bytes
    ok: Flags
    spans: Mapping[str, Span]
    texts: Mapping[str, list[bytes]]
    numbers: Mapping[str, Longs]


class Scanner:
    """Scans messages of one writer schema for one reading. Holds no state between calls."""

    def __init__(self, plan: FastPlan, inputs: Mapping[str, int | None], spanned: Sequence[str]) -> None:
        self._plan = plan
        self._inputs = inputs
        self._constants = {name: np.asarray(value, dtype=np.float32) for name, value in plan.constants.items()}
        self._spanned = frozenset(spanned)
        self._pad = bytes(max([16, *(step.size_bytes for step in plan.steps if isinstance(step, BlockStep))]))

    def scan(
        self, values: Sequence[bytes], prefix_bytes: int, columns: Mapping[str, NDArray[np.float32]], rows: Rows
    ) -> Scan:
        """Read `values`, each behind its prefix, into `rows` of `columns` (rows of messages that aren't ok: garbage)."""
        walk = _Walk(values, prefix_bytes, self._pad)
        for step in self._plan.steps:
            start = walk.cursor
            if isinstance(step, BlockStep):
                self._read_block(walk, step, columns, rows)
            elif isinstance(step, TextStep):
                walk.text(step, is_wanted=step.name in self._spanned)
            elif isinstance(step, VarintStep):
                numbers = walk.numbers[step.name] = walk.varint(step.bits)
                if step.name in self._inputs:
                    columns[step.name][rows] = numbers
            else:
                walk.array(step)
            if not isinstance(step, BlockStep) and step.name in self._spanned:
                walk.spans[step.name] = Span(start=start, end=walk.cursor)
        walk.drop(walk.cursor != walk.ends)
        for name, values_of_default in self._constants.items():
            columns[name][rows] = values_of_default
        return Scan(data=walk.data, ok=walk.ok, spans=walk.spans, texts=walk.texts, numbers=walk.numbers)

    def _read_block(self, walk: _Walk, step: BlockStep, columns: Mapping[str, NDArray[np.float32]], rows: Rows) -> None:
        start = walk.cursor
        block = walk.block(step.size_bytes)
        for offset, byte in step.marks:
            walk.drop(block[:, offset] != byte)
        for part in step.parts:
            if part.kind is Kind.BOOLEAN:
                walk.drop(block[:, part.offset] > 1)
            if part.name in self._inputs and part.count:
                column = columns[part.name]
                column[rows] = _numbers_of(block, part).reshape((-1, *column.shape[1:]))
                walk.drop(~_all_finite(column[rows]))
            if part.name in self._spanned:
                field = start + part.offset
                end = np.where(walk.ok, field + part.kind.item_bytes * part.count, 0)
                walk.spans[part.name] = Span(start=field, end=end)


def _numbers_of(block: NDArray[np.uint8], part: Part) -> NDArray[np.float32]:
    """The part's numbers as float32[messages, count]; what float32 can't hold becomes infinite."""
    raw = block[:, part.offset : part.offset + part.count * part.kind.item_bytes]
    if part.kind is Kind.BOOLEAN:
        return raw.astype(np.float32)
    if part.kind.item_bytes == 4:
        return raw.view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.view("<f8").astype(np.float32)


def _all_finite(values: NDArray[np.float32]) -> Flags:
    """bool[messages]. The usual answer, that all are, is found without going row by row."""
    finite = np.isfinite(values)
    if finite.all():
        return np.ones(len(values), dtype=np.bool_)
    return np.asarray(finite.reshape(len(values), -1).all(axis=1))


class _Walk:
    """The cursors of one scan, and what they have found so far."""

    def __init__(self, values: Sequence[bytes], prefix_bytes: int, pad: bytes) -> None:
        sizes = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
        # With the padding, reading one block or one number from any cursor stays inside the buffer.
        self.data = b"".join([*values, pad])
        self.bytes = np.frombuffer(self.data, dtype=np.uint8)
        self.ends = np.cumsum(sizes)
        self.cursor = self.ends - sizes + prefix_bytes
        self.ok = np.ones(len(values), dtype=np.bool_)
        self.spans: dict[str, Span] = {}
        self.texts: dict[str, list[bytes]] = {}
        self.numbers: dict[str, Longs] = {}

    def drop(self, bad: Flags) -> None:
        """These messages are out."""
        if bad.any():
            self.ok &= ~bad
            self.cursor = np.where(self.ok, self.cursor, 0)

    def skip(self, sizes_bytes: Longs | int) -> None:
        """Step over bytes, which must be there. Sizes may be anything: compared, before they are added."""
        self.drop((sizes_bytes < 0) | (sizes_bytes > self.ends - self.cursor))
        self.cursor = np.where(self.ok, self.cursor + np.where(self.ok, sizes_bytes, 0), 0)

    def varint(self, bits: int) -> Longs:
        """Read a number; only the shortest form of it is accepted, so the field's bytes can be passed on as they are."""
        byte = self.bytes[self.cursor]
        raw = (byte & 0x7F).astype(np.uint64)
        used = np.ones(len(byte), dtype=np.int64)
        more = np.flatnonzero(byte & 0x80)
        bad = np.zeros(len(byte), dtype=np.bool_)
        for index in range(1, _MAX_VARINT_BYTES):
            if not len(more):
                break
            byte = self.bytes[self.cursor[more] + index]
            raw[more] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * index)
            used[more] += 1
            # A last byte of 0 is padding; the tenth byte holds the 64th bit and no more.
            bad[more] |= (byte == 0) | (byte > 1 if index == _MAX_VARINT_BYTES - 1 else False)
            more = more[byte >= 0x80]
        if bits == 32:
            bad |= raw > 0xFFFFFFFF
        self.drop(bad)
        self.skip(used)
        return np.asarray((raw >> np.uint64(1)).astype(np.int64) ^ -(raw & np.uint64(1)).astype(np.int64))

    def text(self, step: TextStep, *, is_wanted: bool) -> None:
        """Step over a text. Cut it out if it is wanted, or to see whether it is UTF-8."""
        sizes_bytes = self.varint(64)
        body = self.cursor
        self.skip(sizes_bytes)
        if not (is_wanted or step.is_utf8):
            return
        data = self.data
        texts = [data[a:b] for a, b in zip(body.tolist(), self.cursor.tolist(), strict=True)]
        self.texts[step.name] = texts
        # An ASCII byte between them keeps the end of one text from completing with the start of the next.
        if step.is_utf8 and not is_utf8(b"|".join(texts)):
            self.drop(np.array([not is_utf8(text) for text in texts], dtype=np.bool_))

    def array(self, step: ArrayStep) -> None:
        """Step over an array of one block (or none): a count, the items, a zero."""
        counts = self.varint(64)
        self.drop((counts < 0) | (counts > (self.ends - self.cursor) // step.item_bytes))
        self.skip(np.where(self.ok, counts, 0) * step.item_bytes)
        filled = np.where(self.ok, counts, 0) > 0
        self.drop(filled & ((self.cursor >= self.ends) | (self.bytes[self.cursor] != 0)))
        self.skip(filled.astype(np.int64))

    def block(self, size_bytes: int) -> NDArray[np.uint8]:
        """Copy the next bytes of all messages: uint8[messages, size_bytes]. Messages that end before are out."""
        windows = as_strided(
            self.bytes, (len(self.bytes) - size_bytes + 1, size_bytes), self.bytes.strides * 2, writeable=False
        )
        found: NDArray[np.uint8] = windows[self.cursor]
        self.skip(size_bytes)
        return found


def is_utf8(text: bytes) -> bool:
    """Whether `text` is UTF-8."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
