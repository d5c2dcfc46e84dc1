from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import pytest

from schemas.load import load_schema
from tests.helpers.avro import Case, Result, decode, one_by_one, oracle, records_of
from worker.avro import zigzag_varint
from worker.framing import SingleObjectFraming
from worker.records import Reason

FLOATS = {"type": "array", "items": "float"}


def record(*fields: Any, name: str = "Event") -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [field if isinstance(field, dict) else {"name": field[0], "type": field[1]} for field in fields],
    }


EVENT = record(("sku", "string"), ("store", "string"), ("as_of", "int"), ("sales", FLOATS), ("price", "double"))
CASE = Case(
    writer=EVENT,
    reader=EVENT,
    inputs={"sales": 3, "price": None},
    key_fields=("sku", "store"),
    echo_fields=("sku", "store", "as_of"),
)
GOOD: dict[str, Any] = {"sku": "a", "store": "b", "as_of": 20000, "sales": [1.0, 2.0, 3.0], "price": 2.5}
HEAD = b"\x02a\x02b" + zigzag_varint(20000)
ITEMS = struct.pack("<3f", 1.0, 2.0, 3.0)
PRICE = struct.pack("<d", 2.5)


def framed(body: bytes, case: Case = CASE) -> bytes:
    return case.prefix + body


def rejected(value: bytes | None, case: Case = CASE, **options: Any) -> tuple[str, str]:
    """Reason and detail for a value between two good ones, which must not suffer."""
    good = case.message(GOOD) if case is CASE else None
    values = [good, value, good] if good else [value]
    result = decode(case.decoder(**options), case, records_of(values))
    assert result.sources == ([0, 2] if good else [])
    [(index, reason, detail)] = result.rejections
    assert index == len(values) // 2
    return reason, detail


def test_good_records_become_rows_with_key_and_echo() -> None:
    result = decode(CASE.decoder(), CASE, records_of([CASE.message(GOOD)]))
    assert result == Result(
        keys=[b"a|b"],
        echoes=[HEAD],
        sources=[0],
        tombstones=[],
        rejections=[],
        inputs={"sales": [[1.0, 2.0, 3.0]], "price": [2.5]},
    )
    assert CASE.is_fast()


def test_nothing_gives_nothing() -> None:
    assert decode(CASE.decoder(), CASE, records_of([])).keys == []


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (HEAD + b"\x06" + ITEMS + b"\x00" + PRICE + b"!", Reason.TRAILING_BYTES, "got 1 bytes behind the record"),
        (HEAD + b"\x04" + ITEMS[:8] + b"\x00" + PRICE, Reason.WRONG_LENGTH, "sales: got 2 values, expected 3"),
        (HEAD + b"\x00" + PRICE, Reason.WRONG_LENGTH, "sales: got 0 values, expected 3"),
        (b"\x00" + HEAD[2:] + b"\x06" + ITEMS + b"\x00" + PRICE, Reason.BAD_KEY, "sku=''"),
        (b"\x02|" + HEAD[2:] + b"\x06" + ITEMS + b"\x00" + PRICE, Reason.BAD_KEY, r"sku='\|'"),
        (b"\x02\xff" + HEAD[2:] + b"\x06" + ITEMS + b"\x00" + PRICE, Reason.MALFORMED, "field sku: not UTF-8"),
        (b"\x01", Reason.MALFORMED, "field sku: got length -1, expected 0 or more"),
        (b"\x80" * 11, Reason.MALFORMED, "field sku: a number of variable length exceeds 64 bits"),
        (HEAD[:4] + b"\xff" * 5, Reason.MALFORMED, "field as_of: a number of variable length exceeds 32 bits"),
        (HEAD[:4] + b"\xff" * 4 + b"\x7f", Reason.MALFORMED, "field as_of: a number of variable length exceeds 32"),
        (b"\xfe" + b"\xff" * 8 + b"\x01", Reason.TRUNCATED, "field sku: needs 9223372036854775807 more bytes"),
        (HEAD + zigzag_varint(2**60), Reason.TRUNCATED, "field sales: needs 4611686018427387904 more bytes"),
        (HEAD + zigzag_varint(-(2**63)) + b"\x00", Reason.TRUNCATED, "field sales: needs 36893488147419103232"),
        (HEAD + b"\x05\x00" + ITEMS + b"\x00" + PRICE, Reason.MALFORMED, "block says 0 bytes, its items take 12"),
        (b"", Reason.TRUNCATED, "field sku: ends inside a number"),
    ],
)
def test_reasons(body: bytes, reason: Reason, detail: str) -> None:
    found_reason, found_detail = rejected(framed(body))
    assert found_reason == reason
    assert detail.replace("\\", "") in found_detail


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named_with_their_place(number: float) -> None:
    assert rejected(CASE.message(GOOD | {"sales": [1.0, number, 3.0]})) == (
        "not_finite",
        f"field sales[1]: got {number}, expected a finite float32",
    )
    reason, detail = rejected(CASE.message(GOOD | {"sales": [number, number, number]}))
    assert (reason, "sales[0]" in detail, "(and 2 more)" in detail) == ("not_finite", True, True)


def test_a_double_that_float32_cannot_hold_is_not_finite() -> None:
    assert rejected(CASE.message(GOOD | {"price": 1e39})) == (
        "not_finite",
        "field price: got 1e+39, expected a finite float32",
    )


def test_reasons_that_need_no_schema() -> None:
    assert rejected(b"\x00" + bytes(20))[0] == "bad_magic"
    assert rejected(b"\xc3\x01" + bytes(20))[0] == "unknown_schema_id"
    assert rejected(b"\xc3\x01")[0] == "truncated"
    assert rejected(b"")[0] == "truncated"
    good_bytes = len(CASE.message(GOOD))
    reason, detail = rejected(bytes(good_bytes + 1), max_value_bytes=good_bytes)
    assert (reason, detail) == ("oversize", f"got a value of {good_bytes + 1} bytes, expected {good_bytes} at most")


def test_nulls_are_tombstones_if_they_have_a_key() -> None:
    result = decode(CASE.decoder(), CASE, records_of([None, None, CASE.message(GOOD)], keys=[b"k", None, None]))
    assert result.tombstones == [0]
    assert [(i, reason) for i, reason, _ in result.rejections] == [(1, "no_key_no_value")]
    assert result.sources == [2]


def test_every_cut_of_a_message_is_truncated_and_never_a_row() -> None:
    whole = CASE.message(GOOD)
    result = decode(CASE.decoder(), CASE, records_of([whole[:size] for size in range(len(whole))]))
    assert result.sources == []
    assert {reason for _, reason, _ in result.rejections} == {"truncated"}


@pytest.mark.parametrize(
    "array",
    [
        b"\x02" + ITEMS[:4] + b"\x04" + ITEMS[4:] + b"\x00",
        b"\x05\x18" + ITEMS + b"\x00",
        b"\x01\x08" + ITEMS[:4] + b"\x04" + ITEMS[4:] + b"\x00",
        b"\x86\x00" + ITEMS + b"\x00",
    ],
    ids=["two blocks", "block with its size", "both", "count in a longer form"],
)
def test_arrays_in_any_legal_form_give_the_same_row(array: bytes) -> None:
    values = [CASE.message(GOOD), framed(HEAD + array + PRICE)]
    result = decode(CASE.decoder(), CASE, records_of(values))
    assert result == oracle(CASE, values)
    assert result.inputs["sales"] == [[1.0, 2.0, 3.0]] * 2


def test_echoes_of_numbers_in_a_longer_form_are_brought_to_the_shortest() -> None:
    result = decode(CASE.decoder(), CASE, records_of([framed(b"\x82\x00a\x02b\x80\x00\x06" + ITEMS + b"\x00" + PRICE)]))
    assert result.echoes == [b"\x02a\x02b\x00"]


def test_a_text_cut_in_two_by_the_next_is_not_utf8() -> None:
    parts = [b"\x02\xc3" + HEAD[2:], b"\x02\xa9" + HEAD[2:]]
    result = decode(CASE.decoder(), CASE, records_of([framed(p + b"\x06" + ITEMS + b"\x00" + PRICE) for p in parts]))
    assert [reason for _, reason, _ in result.rejections] == ["malformed", "malformed"]


def test_what_the_writer_lacks_comes_from_the_readers_defaults() -> None:
    reader = record(
        ("sku", "string"),
        {"name": "note", "type": "bytes", "default": "\u00ff"},
        {"name": "sales", "type": FLOATS, "default": [7.0, 8.0]},
        {"name": "price", "type": "double", "default": 1},
        {"name": "country", "type": "string", "default": "fr"},
    )
    writer = record(("other", FLOATS), ("sku", "string"))
    case = Case(
        writer=writer,
        reader=reader,
        inputs={"sales": 2, "price": None},
        key_fields=("sku",),
        echo_fields=("note", "sku", "country"),
    )
    records = records_of([case.message({"other": [1.0], "sku": "x"}), case.message({"other": [], "sku": "y"})])
    result = decode(case.decoder(), case, records)
    assert case.is_fast()
    assert result == decode(one_by_one(case), case, records)
    assert result.inputs == {"sales": [[7.0, 8.0]] * 2, "price": [1.0, 1.0]}
    assert result.echoes == [b"\x02\xff\x02x\x04fr", b"\x02\xff\x02y\x04fr"]
    keyed = replace(case, key_fields=("sku", "country"))
    assert decode(keyed.decoder(), keyed, records).keys == [b"x|fr", b"y|fr"]
    narrow = replace(case, inputs={"sales": 3})
    assert rejected(narrow.message({"other": [], "sku": "y"}), narrow) == (
        "wrong_length",
        "field sales: got 2 values, expected 3",
    )


def test_fields_that_the_writer_lacks_without_a_default_are_named() -> None:
    case = replace(CASE, writer=record(("sku", "string"), ("store", "string"), ("as_of", "int"), ("price", "double")))
    reason, detail = rejected(case.message({k: v for k, v in GOOD.items() if k != "sales"}), case)
    assert (reason, "lacks sales, which has no default" in detail) == ("missing_field", True)


@pytest.mark.parametrize(("sales", "price"), [(None, 1.0), ([1.0, None, 3.0], 1.0), ([1.0, 2.0, 3.0], None)])
def test_null_for_an_input_is_a_missing_field(sales: Any, price: float | None) -> None:
    optional = {"type": "array", "items": ["null", "float"]}
    schema = record(*EVENT["fields"][:3], ("sales", ["null", optional]), ("price", ["null", "double"]))
    case = replace(CASE, writer=schema, reader=schema)
    reason, detail = rejected(case.message(GOOD | {"sales": sales, "price": price}), case)
    assert reason == "missing_field"
    assert ("sales" in detail) == (price is not None)


def test_keys_of_bytes_enums_and_numbers_are_text_on_both_paths() -> None:
    schema = record(
        ("sku", "bytes"), ("store", {"type": "enum", "name": "S", "symbols": ["PARIS"]}), *EVENT["fields"][2:]
    )
    case = replace(CASE, writer=schema, reader=schema, key_fields=("sku", "store", "as_of"), echo_fields=("store",))
    result = decode(case.decoder(), case, records_of([case.message(GOOD | {"sku": b"\xff", "store": "PARIS"})]))
    assert (case.is_fast(), result.keys, result.echoes) == (False, [b"\xff|PARIS|20000"], [b"\x00"])


def test_a_scalar_input_that_is_an_array_in_a_union_is_refused() -> None:
    schema = record(*EVENT["fields"][:4], ("price", ["null", "double", {"type": "array", "items": "double"}]))
    reader = record(*EVENT["fields"][:4], ("price", ["null", "double"]))
    case = replace(CASE, writer=schema, reader=reader)
    assert decode(case.decoder(), case, records_of([case.message(GOOD)])).inputs["price"] == [2.5]
    assert rejected(case.message(GOOD | {"price": [1.0]}), case)[0] == "malformed"


def test_null_in_a_key_is_a_bad_key() -> None:
    schema = record(("sku", ["null", "string"]), *EVENT["fields"][1:])
    case = replace(CASE, writer=schema, reader=schema)
    assert rejected(case.message(GOOD | {"sku": None}), case)[0] == "bad_key"


def test_writers_that_cannot_be_read_as_the_reader_are_rejected_one_by_one() -> None:
    case = replace(CASE, writer=record(*EVENT["fields"][:4], ("price", "string")))
    reason, detail = rejected(case.message(GOOD | {"price": "x"}), case)
    assert (reason, "can't be read as Event" in detail) == ("malformed", True)


def test_endless_recursion_and_endless_empty_items_are_rejected() -> None:
    node = record(("next", ["null", "Node"]), name="Node")
    case = replace(CASE, writer=record(*EVENT["fields"], ("more", node)))
    body = HEAD + b"\x06" + ITEMS + b"\x00" + PRICE
    reason, detail = rejected(framed(body + b"\x02" * 100_000 + b"\x00", case), case)
    assert (reason, "next: nested deeper than 64 levels" in detail) == ("malformed", True)
    empties = replace(CASE, writer=record(*EVENT["fields"], ("more", {"type": "array", "items": "null"})))
    reason, detail = rejected(framed(body + zigzag_varint(2**50) + b"\x00", empties), empties)
    assert (reason, "more than 4096 array items of no bytes" in detail) == ("malformed", True)


def test_a_poll_of_several_schemas_keeps_the_order_of_records() -> None:
    moved = replace(CASE, writer=record(("price", "double"), ("sales", FLOATS), *EVENT["fields"][:3]))
    promoted = replace(CASE, writer=record(("price", "int"), *EVENT["fields"][:4]))
    assert (moved.is_fast(), promoted.is_fast()) == (True, False)
    framing = SingleObjectFraming([EVENT, moved.writer, promoted.writer])
    cases = [CASE, moved, promoted, CASE, moved, promoted, CASE]
    values = [each.message(GOOD | {"sku": f"s{i}", "price": i}) for i, each in enumerate(cases)]
    values.insert(3, b"junk")
    result = decode(CASE.decoder(framing=framing), CASE, records_of(values))
    assert result.keys == [f"s{i}|b".encode() for i in range(7)]
    assert result.inputs["price"] == [float(i) for i in range(7)]
    assert result.sources == [0, 1, 2, 4, 5, 6, 7]


def test_more_records_than_one_chunk_keep_their_rows() -> None:
    values = [CASE.message(GOOD | {"price": float(i)}) for i in range(2500)]
    values[1500] = values[1500][:-1]
    result = decode(CASE.decoder(), CASE, records_of(values))
    assert result.inputs["price"] == [float(i) for i in range(2500) if i != 1500]


def test_the_packaged_schema_is_read_at_once_with_logical_types() -> None:
    schema: dict[str, Any] = load_schema(None, "sku_features")
    inputs = {field["name"]: len(field["default"]) for field in schema["fields"] if "default" in field} | {"sales": 30}
    case = Case(
        writer=schema,
        reader=schema,
        inputs=inputs,
        key_fields=("sku_id", "store_id"),
        echo_fields=("sku_id", "store_id", "as_of"),
    )
    assert case.is_fast()
    value = {name: [float(i) for i in range(width)] for name, width in inputs.items()}
    result = decode(
        case.decoder(), case, records_of([case.message(value | {"sku_id": "s", "store_id": "t", "as_of": 1})])
    )
    assert result.keys == [b"s|t"]
    assert result.inputs["temperature_next"] == [[float(i) for i in range(14)]]
