"""Broken feature events, one for every reason code that an input record can be rejected with, but a date
that no calendar has.

`broken_events` makes them from a good one; `mixed` scatters them among good ones at a set rate.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from demo.events import MARKER, Event, Schema, single_object_header
from worker.avro import zigzag_varint
from worker.records import Reason

OVERSIZE_BYTES: Final = 65_536
"""`input.max_value_bytes` of the demo's worker: the oversize event is just longer."""

_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenEvent:
    """A message that must end in the dead letters with `reason`."""

    reason: Reason
    key: bytes | None
    value: bytes | None


def schema_without(schema: Schema, field: str) -> Schema:
    """`schema` as another team might have registered it: without `field`. Raises `ValueError` if it has no such field."""
    rest = [entry for entry in schema["fields"] if entry["name"] != field]
    if len(rest) == len(schema["fields"]):
        raise ValueError(f"schema {schema['name']} has no field {field!r}")
    return {**schema, "fields": rest}


def broken_events(good: Event, schema: Schema, *, max_value_bytes: int = OVERSIZE_BYTES) -> list[BrokenEvent]:
    """One broken event per reason code, in the order of `Reason`.

    good: an event in single-object encoding written with `schema`, whose fields begin with the strings sku_id and
    store_id, the date as_of and the array sales. The worker must know `schema_without(schema, "sales")` as a writer
    schema, or that event's reason is an unknown schema.
    """
    parts = _Parts(good.value)
    foreign = single_object_header(schema_without(schema, "sales"))
    unknown = MARKER + bytes(byte ^ 0xFF for byte in good.value[2:10])
    padding = _string(b"x" * max_value_bytes)
    values: dict[Reason, bytes | None] = {
        Reason.BAD_MAGIC: b"{}" + good.value[2:],
        Reason.UNKNOWN_SCHEMA: unknown + good.value[10:],
        Reason.TRUNCATED: good.value[:-7],
        Reason.TRAILING_BYTES: good.value + b"\x00\x01",
        Reason.MALFORMED: good.value[:10] + zigzag_varint(-5) + good.value[11:],  # a string of minus five bytes
        Reason.MISSING_FIELD: foreign + parts.ids + parts.after_sales,
        Reason.WRONG_LENGTH: parts.header + parts.ids + _floats(parts.sales[:-1]) + parts.after_sales,
        Reason.NOT_FINITE: parts.header + parts.ids + _floats((*parts.sales[:-1], float("nan"))) + parts.after_sales,
        Reason.BAD_KEY: parts.header + zigzag_varint(0) + parts.store_id + parts.as_of + parts.from_sales,
        Reason.NO_KEY_NO_VALUE: None,
        Reason.OVERSIZE: parts.header + padding + parts.store_id + parts.as_of + parts.from_sales,
    }
    keyless = {Reason.NO_KEY_NO_VALUE}
    return [
        BrokenEvent(reason=reason, key=None if reason in keyless else good.key, value=values[reason])
        for reason in Reason
        if reason in values
    ]


def mixed(good: Iterable[Event], broken: list[BrokenEvent], *, one_in: int) -> Iterator[Event | BrokenEvent]:
    """After every `one_in - 1` good events a broken one, the reasons taken in turn."""
    for number, event in enumerate(good):
        yield event
        place, rest = divmod(number + 1, one_in - 1)
        if rest == 0:
            yield broken[(place - 1) % len(broken)]


class _Parts:
    """A good event, cut where its fields begin."""

    def __init__(self, value: bytes) -> None:
        self.header = value[:10]
        store_id_at = _after_string(value, 10)
        as_of_at = _after_string(value, store_id_at)
        sales_at = _after_varint(value, as_of_at)
        count, first = _read_varint(value, sales_at)
        end = first + count * _FLOAT_BYTES
        self.store_id = value[store_id_at:as_of_at]
        self.as_of = value[as_of_at:sales_at]
        self.ids = value[10:sales_at]
        self.sales: tuple[float, ...] = struct.unpack(f"<{count}f", value[first:end])
        self.from_sales = value[sales_at:]
        self.after_sales = value[end + 1 :]


def _floats(numbers: tuple[float, ...]) -> bytes:
    return zigzag_varint(len(numbers)) + struct.pack(f"<{len(numbers)}f", *numbers) + b"\x00"


def _string(data: bytes) -> bytes:
    return zigzag_varint(len(data)) + data


def _read_varint(value: bytes, start: int) -> tuple[int, int]:
    end = _after_varint(value, start)
    raw = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(value[start:end]))
    return (raw >> 1) ^ -(raw & 1), end


def _after_varint(value: bytes, start: int) -> int:
    return next(place for place in range(start, len(value)) if value[place] < 0x80) + 1


def _after_string(value: bytes, start: int) -> int:
    length, first = _read_varint(value, start)
    return first + length
