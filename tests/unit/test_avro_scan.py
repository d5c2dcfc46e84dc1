from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.avro import encoded
from worker.avro import record_type_from_schema, zigzag_varint
from worker.avro_plan import Reading, compile_plan
from worker.avro_scan import Scan, Scanner, is_utf8

FLOATS = {"type": "array", "items": "float"}


def scan(fields: list[tuple[str, Any]], values: list[bytes], spanned: list[str] | None = None) -> Scan:
    schema = {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    record = record_type_from_schema(schema)
    reading = Reading(inputs={}, key_fields=(fields[0][0],), echo_fields=())
    plan = compile_plan(record, record, reading).fast
    assert plan is not None
    return Scanner(plan, {}, [name for name, _ in fields] if spanned is None else spanned).scan(
        values, 0, {}, slice(0, 0)
    )


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_longs(numbers: list[int]) -> None:
    found = scan([("n", "long")], [encoded({"type": "long"}, number) for number in numbers])  # type: ignore[arg-type]
    assert found.ok.all()
    assert found.numbers["n"].tolist() == numbers


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
def test_ints(numbers: list[int]) -> None:
    found = scan([("n", "int")], [zigzag_varint(number) for number in numbers])
    assert found.ok.all()
    assert found.numbers["n"].tolist() == numbers


@pytest.mark.parametrize(
    "value",
    [
        b"\x80\x00",
        b"\x82\x80\x00",
        b"\xff" * 9 + b"\x02",
        b"\xff" * 10 + b"\x01",
        b"\xff" * 30,
        b"\x80",
        b"",
        b"\x02\x02",
    ],
)
def test_numbers_that_are_too_long_or_cut_are_left_alone(value: bytes) -> None:
    found = scan([("n", "long")], [b"\x02", value, b"\x04"])
    assert found.ok.tolist() == [True, False, True]
    assert found.numbers["n"][[0, 2]].tolist() == [1, 2]


def test_ints_beyond_32_bits_are_left_alone() -> None:
    assert scan([("n", "int")], [zigzag_varint(2**31), zigzag_varint(2**31 - 1)]).ok.tolist() == [False, True]


def test_spans_lie_where_the_fields_are() -> None:
    found = scan([("a", "string"), ("b", "boolean"), ("n", "int")], [b"\x04xy\x01\x02", b"\x00\x00\x80\x01"])
    assert found.ok.all()
    cut = {
        name: [found.data[a:b] for a, b in zip(span.start.tolist(), span.end.tolist(), strict=True)]
        for name, span in found.spans.items()
    }
    assert cut == {"a": [b"\x04xy", b"\x00"], "b": [b"\x01", b"\x00"], "n": [b"\x02", b"\x80\x01"]}
    assert found.texts["a"] == [b"xy", b""]


@pytest.mark.parametrize(
    ("array", "is_ok"),
    [
        (b"\x00", True),
        (b"\x04" + bytes(8) + b"\x00", True),
        (b"\x04" + bytes(8), False),
        (b"\x04" + bytes(7) + b"\x00", False),
        (b"\x04" + bytes(8) + b"\x02" + bytes(4) + b"\x00", False),
        (b"\x03\x10" + bytes(8) + b"\x00", False),
        (zigzag_varint(2**62) + b"\x00", False),
        (zigzag_varint(2**61 + 1) + bytes(4) + b"\x00", False),
    ],
)
def test_arrays_that_nobody_wants_are_stepped_over_if_they_are_simple(array: bytes, *, is_ok: bool) -> None:
    found = scan([("k", "int"), ("x", FLOATS), ("n", "int")], [b"\x00" + array + b"\x06"], ["n"])
    assert found.ok.tolist() == [is_ok]
    assert not is_ok or found.numbers["n"].tolist() == [3]


def test_one_bad_message_does_not_move_the_others() -> None:
    fields = [("k", "string"), ("x", FLOATS), ("b", "boolean"), ("t", "string")]
    good = b"\x02k" + b"\x02" + bytes(4) + b"\x00" + b"\x01" + b"\x06end"
    bad = [
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x02k\x02",
        good[:-1],
        good.replace(b"\x01\x06", b"\x09\x06"),
        b"",
    ]
    values = [piece for each in bad for piece in (good, each)]
    found = scan(fields, values)
    assert found.ok.tolist() == [True, False] * len(bad)
    assert [text for text, is_ok in zip(found.texts["t"], found.ok, strict=True) if is_ok] == [b"end"] * len(bad)


def test_doubles_beyond_float32_are_left_alone_without_a_warning() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "k", "type": "int"}, {"name": "y", "type": "double"}]}
    record = record_type_from_schema(schema)
    plan = compile_plan(record, record, Reading(inputs={"y": None}, key_fields=("k",), echo_fields=())).fast
    assert plan is not None
    column = np.zeros(3, np.float32)
    values = [b"\x00" + np.float64(number).tobytes() for number in (1e300, 1.5, np.nan)]
    found = Scanner(plan, {"y": None}, ["k"]).scan(values, 0, {"y": column}, slice(0, 3))
    assert found.ok.tolist() == [False, True, False]
    assert column[1] == np.float32(1.5)


def test_utf8() -> None:
    assert [is_utf8(text) for text in (b"", b"a", "é".encode(), b"\xc3", b"\xed\xa0\x80")] == [
        True,
        True,
        True,
        False,
        False,
    ]
