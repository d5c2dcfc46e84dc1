from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import pytest

from worker.avro import record_type_from_schema
from worker.avro_check import BadBytesError, Cursor, checker_of
from worker.records import Reason


def walk(avro_type: Any, data: bytes) -> Cursor:
    record = record_type_from_schema({"type": "record", "name": "R", "fields": [{"name": "a", "type": avro_type}]})
    cursor = Cursor(data, 0)
    checker_of(record)(cursor)
    return cursor


ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
VALUES: list[tuple[Any, Any]] = [
    ("null", None),
    ("boolean", True),
    ("int", -(2**31)),
    ("long", 2**63 - 1),
    ("float", 1.5),
    ("double", -2.5),
    ("bytes", b"\xff" * 70),
    ("string", "é" * 40),
    (ENUM, "B"),
    ({"type": "fixed", "name": "F", "size": 3}, b"abc"),
    (["null", "string", ENUM], "long enough"),
    ({"type": "array", "items": "float"}, [1.0, 2.0]),
    ({"type": "array", "items": "boolean"}, [True, False]),
    ({"type": "array", "items": "null"}, [None] * 5),
    ({"type": "map", "values": {"type": "array", "items": "string"}}, {"x": ["y", "z"], "": []}),
    ({"type": "record", "name": "N", "fields": [{"name": "b", "type": ["null", "N"]}]}, {"b": {"b": {"b": None}}}),
]


@pytest.mark.parametrize(("avro_type", "value"), VALUES)
def test_it_ends_where_the_value_ends_and_notices_every_cut(avro_type: Any, value: Any) -> None:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro_type), value)
    data = out.getvalue()
    assert walk(avro_type, data + b"\x01\x02").at == len(data)
    for size in range(len(data)):
        with pytest.raises(BadBytesError) as caught:
            walk(avro_type, data[:size])
        assert caught.value.refusal.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("avro_type", "data", "detail"),
    [
        ("boolean", b"\x02", "field a: got byte 0x02, expected a boolean: 0 or 1"),
        ("bytes", b"\x01", "field a: got length -1"),
        ("string", b"\x04\xc3\x28", "field a: not UTF-8"),
        (ENUM, b"\x04", "got enum index 2, expected 0 to 1"),
        (ENUM, b"\x01", "got enum index -1"),
        (["null", "int"], b"\x04", "got union index 2, expected 0 to 1"),
        (["null", "int"], b"\x01", "got union index -1"),
        ("int", b"\xff\xff\xff\xff\x10", "exceeds 32 bits"),
        ("long", b"\xff" * 9 + b"\x02", "exceeds 64 bits"),
        ({"type": "array", "items": "float"}, b"\x01\x02" + bytes(5), "block says 1 bytes, its items take 4"),
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\x0f", "more than 4096 array items of no bytes"),
        ({"type": "map", "values": "int"}, b"\x02\x01", "got length -1"),
    ],
)
def test_what_is_malformed(avro_type: Any, data: bytes, detail: str) -> None:
    with pytest.raises(BadBytesError) as caught:
        walk(avro_type, data)
    assert caught.value.refusal.reason is Reason.MALFORMED
    assert detail in caught.value.refusal.detail


def test_errors_name_the_path_of_nested_fields() -> None:
    nested = {"type": "record", "name": "N", "fields": [{"name": "b", "type": "int"}, {"name": "c", "type": "boolean"}]}
    with pytest.raises(BadBytesError, match=r"field a\.c: got byte 0x07"):
        walk({"type": "array", "items": nested}, b"\x02\x00\x07\x00")


def test_a_bomb_of_nested_counts_is_bounded_by_the_bytes_there_are() -> None:
    deep: Any = "null"
    for _ in range(3):
        deep = {"type": "array", "items": deep}
    with pytest.raises(BadBytesError):
        walk(deep, b"\xfe\xff\xff\xff\x0f" * 3)
