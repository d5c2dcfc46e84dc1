from __future__ import annotations

from typing import Any

import pytest

from worker.avro import record_type_from_schema
from worker.avro_fast import FastReader, is_good_key
from worker.avro_plan import Reading, compile_plan

FIELDS = [("a", "string"), ("b", "string"), ("n", "long"), ("c", "bytes")]
VALUE = b"\x02x\x02y\x80\x01\x02z"


def reader_of(keys: tuple[str, ...], echo: tuple[str, ...], defaults: dict[str, bytes]) -> FastReader:
    schema: dict[str, Any] = {"type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in FIELDS]}
    record = record_type_from_schema(schema)
    reading = Reading(inputs={}, key_fields=keys, echo_fields=tuple(name for name in echo if name not in defaults))
    plan = compile_plan(record, record, reading).fast
    assert plan is not None
    full = Reading(inputs={}, key_fields=keys, echo_fields=echo)
    return FastReader(writer=record, plan=plan, reading=full, echo_defaults=defaults)


@pytest.mark.parametrize(
    ("keys", "key"),
    [(("a",), b"x"), (("n",), b"64"), (("b", "a"), b"y|x"), (("c", "n", "a"), b"z|64|x")],
)
def test_keys_join_their_parts(keys: tuple[str, ...], key: bytes) -> None:
    rows = reader_of(keys, (), {}).read([VALUE, VALUE], 0, {}, slice(0, 2))
    assert rows.ok.all()
    assert rows.keys == [key, key]


@pytest.mark.parametrize(
    ("echo", "defaults", "expected"),
    [
        ((), {}, b""),
        (("a", "b", "n"), {}, VALUE[:6]),
        (("b", "a"), {}, b"\x02y\x02x"),
        (("n", "c", "a"), {}, b"\x80\x01\x02z\x02x"),
        (("a", "d", "b"), {"d": b"<d>"}, b"\x02x<d>\x02y"),
        (("d",), {"d": b"<d>"}, b"<d>"),
    ],
)
def test_echoes_repeat_the_fields_bytes_in_the_wanted_order(
    echo: tuple[str, ...], defaults: dict[str, bytes], expected: bytes
) -> None:
    rows = reader_of(("a",), echo, defaults).read([VALUE, b"<5>" + VALUE][:1], 0, {}, slice(0, 1))
    assert rows.echoes == [expected]
    behind_prefix = reader_of(("a",), echo, defaults).read([b"<5>" + VALUE], 3, {}, slice(0, 1))
    assert behind_prefix.echoes == [expected]


@pytest.mark.parametrize("bad", [b"\x00\x02y\x02\x02z", b"\x02|\x02y\x02\x02z", b"\x02x\x00\x02\x02z"])
def test_bad_keys_are_left_to_the_slow_path(bad: bytes) -> None:
    rows = reader_of(("a", "b"), (), {}).read([VALUE, bad, VALUE], 0, {}, slice(0, 3))
    assert rows.ok.tolist() == [True, False, True]


def test_good_keys() -> None:
    assert is_good_key([b"a", b"b"])
    assert not is_good_key([b"a", b""])
    assert not is_good_key([b"a|", b"b"])
