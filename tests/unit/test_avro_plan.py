from __future__ import annotations

from typing import Any

import pytest

from worker.avro import Kind, record_type_from_schema
from worker.avro_plan import ArrayStep, BlockStep, Part, Plan, Reading, TextStep, VarintStep, compile_plan
from worker.records import Reason

FLOATS = {"type": "array", "items": "float"}
DOUBLES = {"type": "array", "items": "double"}
READING = Reading(inputs={"x": 2, "y": None}, key_fields=("k",), echo_fields=("k",))


def schema(**types: Any) -> dict[str, Any]:
    fields = [
        value if isinstance(value, dict) and "name" in value else {"name": key, "type": value}
        for key, value in types.items()
    ]
    return {"type": "record", "name": "R", "fields": fields}


def plan(writer: dict[str, Any], reader: dict[str, Any] | None = None, reading: Reading = READING) -> Plan:
    return compile_plan(record_type_from_schema(writer), record_type_from_schema(reader or writer), reading)


def test_fields_of_known_size_share_a_block_and_others_keep_their_own_step() -> None:
    fast = plan(
        schema(k="string", n="int", x=FLOATS, b="boolean", y="double", spare=DOUBLES, raw="bytes", m="long", z="float")
    ).fast
    assert fast is not None
    assert fast.steps == (
        TextStep(name="k", is_utf8=True),
        VarintStep(name="n", bits=32),
        BlockStep(
            size_bytes=1 + 8 + 1 + 1 + 8,
            parts=(
                Part(name="x", kind=Kind.FLOATS, offset=1, count=2),
                Part(name="b", kind=Kind.BOOLEAN, offset=10, count=1),
                Part(name="y", kind=Kind.DOUBLE, offset=11, count=1),
            ),
            marks=((0, 4), (9, 0)),
        ),
        ArrayStep(name="spare", item_bytes=8),
        TextStep(name="raw", is_utf8=False),
        VarintStep(name="m", bits=64),
        BlockStep(size_bytes=4, parts=(Part(name="z", kind=Kind.FLOAT, offset=0, count=1),), marks=()),
    )


def test_an_empty_array_is_one_zero_and_a_long_one_has_a_longer_count() -> None:
    for width, marks in ((0, ((0, 0),)), (64, ((0, 0x80), (1, 0x01), (2 + 256, 0)))):
        reading = Reading(inputs={"x": width}, key_fields=("k",), echo_fields=())
        fast = plan(schema(k="string", x=FLOATS), reading=reading).fast
        assert fast is not None
        assert isinstance(fast.steps[1], BlockStep)
        assert fast.steps[1].marks == marks


GOOD: dict[str, Any] = {"k": "string", "x": FLOATS, "y": "float"}


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (schema(**GOOD | {"y": "int"}), schema(**GOOD)),
        (schema(**GOOD | {"k": "bytes"}), schema(**GOOD)),
        (schema(**GOOD | {"y": ["null", "float"]}), None),
        (schema(**GOOD | {"x": {"type": "array", "items": "int"}}), None),
        (schema(**GOOD, more={"type": "map", "values": "int"}), None),
        (schema(**GOOD, more=["null", "string"]), None),
        (schema(**GOOD) | {"name": "Other"}, schema(**GOOD)),
        (schema(**GOOD) | {"name": "Other"}, schema(**GOOD) | {"aliases": ["Other"]}),
        (schema(**GOOD), schema(**GOOD | {"y": {"name": "y", "type": "float", "aliases": ["z"]}})),
        (schema(k="string", x=FLOATS), schema(**GOOD | {"y": {"name": "y", "type": "float", "default": 1e300}})),
        (schema(k="string", y="float"), schema(**GOOD | {"x": {"name": "x", "type": FLOATS, "default": [1.0]}})),
        (schema(x=FLOATS, y="float"), schema(**GOOD | {"k": {"name": "k", "type": "string", "default": "a"}})),
        (schema(**GOOD | {"k": "float"}), None),
    ],
)
def test_everything_else_is_read_one_by_one(writer: dict[str, Any], reader: dict[str, Any] | None) -> None:
    found = plan(writer, reader)
    assert (found.fast, found.refusal) == (None, None)


def test_an_alias_counts_as_sent_and_a_missing_field_is_named() -> None:
    reader = schema(**GOOD | {"y": {"name": "y", "type": "float", "aliases": ["old"]}})
    assert plan(schema(k="string", x=FLOATS, old="float"), reader).refusal is None
    refusal = plan(schema(k="string", old="float"), reader).refusal
    assert refusal is not None
    assert refusal.reason is Reason.MISSING_FIELD
    assert refusal.detail == "writer schema R lacks x, which has no default in R; got fields k, old"


def test_defaults_of_fields_that_the_writer_lacks() -> None:
    reader = schema(**GOOD | {"x": {"name": "x", "type": FLOATS, "default": [1.0, 2.0]}})
    found = plan(schema(k="string", y="float"), reader)
    assert found.defaults == {"x": [1.0, 2.0]}
    assert found.fast is not None
    assert found.fast.constants == {"x": [1.0, 2.0]}
