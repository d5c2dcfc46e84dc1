"""Walks the bytes of one message along its schema before anything is made of them.

What passes is exactly one value of the schema and not a byte more, so the decoder behind it can neither read past the
end, nor loop or allocate for a count that isn't there, nor recurse without end. The walk costs no more than the bytes it
looks at: arrays of numbers are stepped over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from worker.avro import RecordType
from worker.framing import Refusal
from worker.records import Reason

MAX_DEPTH = 64
MAX_ITEMS_WITHOUT_BYTES = 4096

_FIXED_BYTES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class BadBytesError(ValueError):
    """The bytes aren't one value of the schema. `refusal` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refusal = Refusal(reason=reason, detail=detail)
        super().__init__(detail)


class Cursor:
    """How far a message has been walked. `path` names the field for error messages."""

    __slots__ = ("at", "data", "depth", "empties", "end", "path")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.end = len(data)
        self.path = ""
        self.depth = 0
        self.empties = 0

    def fail(self, reason: Reason, what: str) -> BadBytesError:
        """The error for what is found here."""
        where = f"field {self.path}" if self.path else "record"
        return BadBytesError(reason, f"{where}: {what} (byte {self.at} of {self.end})")

    def skip(self, size_bytes: int) -> None:
        """Step over bytes that must be there."""
        if size_bytes > self.end - self.at:
            raise self.fail(Reason.TRUNCATED, f"needs {size_bytes} more bytes, {self.end - self.at} are left")
        self.at += size_bytes

    def long(self, bits: int = 64) -> int:
        """Read an int (32 bits) or a long (64)."""
        value = 0
        for shift in range(0, 70 if bits == 64 else 35, 7):
            if self.at >= self.end:
                raise self.fail(Reason.TRUNCATED, "ends inside a number of variable length")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    break
                return (value >> 1) ^ -(value & 1)
        raise self.fail(Reason.MALFORMED, f"a number of variable length exceeds {bits} bits")


Checker: TypeAlias = Callable[[Cursor], None]


def checker_of(record: RecordType) -> Checker:
    """A function that moves a cursor over one value of `record`, or raises `BadBytesError`."""
    return _Compiler(record.named).checker(record.parsed)


class _Compiler:
    """Named types may refer to themselves: they are looked up when walked."""

    def __init__(self, named: Mapping[str, object]) -> None:
        self._named = named
        self._compiled: dict[str, Checker] = {}

    def checker(self, avro_type: object) -> Checker:
        if isinstance(avro_type, str):
            return self._primitive(avro_type) or self._reference(avro_type)
        if isinstance(avro_type, list):
            return _union([self.checker(branch) for branch in avro_type])
        node = cast("dict[str, object]", avro_type)
        makers: dict[object, Callable[[dict[str, object]], Checker]] = {
            "array": lambda node: _array(self.checker(node["items"]), _size_of(node["items"])),
            "map": lambda node: _map(self.checker(node["values"])),
            "enum": lambda node: _enum(len(cast("list[str]", node["symbols"]))),
            "fixed": lambda node: _fixed(cast("int", node["size"])),
            "record": self._record,
            "error": self._record,
        }
        return makers[node["type"]](node)

    def _record(self, node: dict[str, object]) -> Checker:
        fields = cast("list[dict[str, object]]", node["fields"])
        return _record([(str(field["name"]), self.checker(field["type"])) for field in fields])

    @staticmethod
    def _primitive(name: str) -> Checker | None:
        if name == "boolean":
            return _boolean
        if name in _FIXED_BYTES:
            return _fixed(_FIXED_BYTES[name])
        return {"int": _int, "long": _long, "bytes": _bytes, "string": _string}.get(name)

    def _reference(self, name: str) -> Checker:
        def check(cursor: Cursor) -> None:
            compiled = self._compiled.get(name)
            if compiled is None:
                compiled = self._compiled[name] = self.checker(self._named[name])
            compiled(cursor)

        return check


def _fixed(size_bytes: int) -> Checker:
    return lambda cursor: cursor.skip(size_bytes)


def _int(cursor: Cursor) -> None:
    cursor.long(32)


def _long(cursor: Cursor) -> None:
    cursor.long()


def _boolean(cursor: Cursor) -> None:
    cursor.skip(1)
    if cursor.data[cursor.at - 1] > 1:
        raise cursor.fail(Reason.MALFORMED, f"got byte {cursor.data[cursor.at - 1]:#04x}, expected a boolean: 0 or 1")


def _bytes(cursor: Cursor) -> None:
    length = cursor.long()
    if length < 0:
        raise cursor.fail(Reason.MALFORMED, f"got length {length}, expected 0 or more")
    cursor.skip(length)


def _string(cursor: Cursor) -> None:
    start = cursor.at
    length = cursor.long()
    if length < 0:
        raise cursor.fail(Reason.MALFORMED, f"got length {length}, expected 0 or more")
    cursor.skip(length)
    try:
        cursor.data[cursor.at - length : cursor.at].decode()
    except UnicodeDecodeError as error:
        cursor.at = start
        raise cursor.fail(Reason.MALFORMED, f"not UTF-8: {error.reason}") from error


def _enum(symbols: int) -> Checker:
    def check(cursor: Cursor) -> None:
        index = cursor.long(32)
        if not 0 <= index < symbols:
            raise cursor.fail(Reason.MALFORMED, f"got enum index {index}, expected 0 to {symbols - 1}")

    return check


def _union(branches: list[Checker]) -> Checker:
    def check(cursor: Cursor) -> None:
        index = cursor.long()
        if not 0 <= index < len(branches):
            raise cursor.fail(Reason.MALFORMED, f"got union index {index}, expected 0 to {len(branches) - 1}")
        _nested(cursor, branches[index])

    return check


def _record(fields: list[tuple[str, Checker]]) -> Checker:
    def check(cursor: Cursor) -> None:
        outer = cursor.path
        for name, checker in fields:
            cursor.path = f"{outer}.{name}" if outer else name
            _nested(cursor, checker)
        cursor.path = outer

    return check


def _nested(cursor: Cursor, checker: Checker) -> None:
    if cursor.depth >= MAX_DEPTH:
        raise cursor.fail(Reason.MALFORMED, f"nested deeper than {MAX_DEPTH} levels")
    cursor.depth += 1
    checker(cursor)
    cursor.depth -= 1


def _array(item: Checker, item_bytes: int | None) -> Checker:
    return lambda cursor: _blocks(cursor, item, item_bytes)


def _map(value: Checker) -> Checker:
    def entry(cursor: Cursor) -> None:
        _string(cursor)
        value(cursor)

    return lambda cursor: _blocks(cursor, entry, None)


def _blocks(cursor: Cursor, item: Checker, item_bytes: int | None) -> None:
    """Avro's blocks: a count, the items, again, until the count is 0. A negative count is followed by a size in bytes."""
    while count := cursor.long():
        size_bytes = cursor.long() if count < 0 else None
        count = abs(count)
        start = cursor.at
        if item_bytes:
            cursor.skip(count * item_bytes)
        else:
            _items(cursor, item, count)
        if size_bytes is not None and size_bytes != cursor.at - start:
            raise cursor.fail(Reason.MALFORMED, f"block says {size_bytes} bytes, its items take {cursor.at - start}")


def _items(cursor: Cursor, item: Checker, count: int) -> None:
    for _ in range(count):
        before = cursor.at
        _nested(cursor, item)
        # Items without bytes: the message's length doesn't bound their number, so something else must.
        cursor.empties += cursor.at == before
        if cursor.empties > MAX_ITEMS_WITHOUT_BYTES:
            raise cursor.fail(Reason.MALFORMED, f"more than {MAX_ITEMS_WITHOUT_BYTES} array items of no bytes")


def _size_of(avro_type: object) -> int | None:
    """Bytes of an item that needn't be looked into; None for all others."""
    return _FIXED_BYTES[avro_type] if avro_type in ("float", "double") else None
