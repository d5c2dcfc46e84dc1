from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.avro import Kind, fingerprint, plain, record_type_from_schema, zigzag_varint


def record(avro_type: Any, **field: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "a", "type": avro_type, **field}]}


@pytest.mark.parametrize(
    ("avro_type", "kind"),
    [
        ("string", Kind.STRING),
        ("bytes", Kind.BYTES),
        ("boolean", Kind.BOOLEAN),
        ({"type": "int", "logicalType": "date"}, Kind.INT),
        ({"type": "long", "logicalType": "timestamp-millis"}, Kind.LONG),
        ({"type": "array", "items": {"type": "float", "unit": "pieces"}}, Kind.FLOATS),
        ({"type": "array", "items": "double"}, Kind.DOUBLES),
        ({"type": "array", "items": "int"}, None),
        ({"type": "array", "items": {"type": "array", "items": "float"}}, None),
        (["null", "float"], None),
        ({"type": "map", "values": "float"}, None),
        ("null", None),
    ],
)
def test_kinds(avro_type: Any, kind: Kind | None) -> None:
    assert record_type_from_schema(record(avro_type)).fields[0].kind is kind


def test_plain_keeps_what_changes_bytes_and_defaults_that_look_like_types() -> None:
    odd = {"type": "long", "logicalType": "x"}
    schema = record(
        ["null", {"type": "map", "values": odd}], default=None, doc="text", aliases=["b"], order="ignore"
    ) | {"doc": "text", "__fastavro_parsed__": True}
    assert plain(schema) == record(["null", {"type": "map", "values": "long"}], default=None, aliases=["b"])
    nested = {"type": "record", "name": "N", "fields": []}
    kept = record(nested, default={"type": "int", "logicalType": "date"})
    assert plain(kept) == kept
    assert plain({"type": {"type": "int"}}) == "int"


def test_named_types_are_found_and_what_fastavro_parsed_parses_again() -> None:
    schema = record({"type": "enum", "name": "E", "symbols": ["A"]})
    schema["fields"].append({"name": "again", "type": "E"})
    once = record_type_from_schema(schema)
    twice = record_type_from_schema(fastavro.parse_schema(schema))  # type: ignore[arg-type]
    assert sorted(once.named) == sorted(twice.named) == ["n.E", "n.R"]
    assert (once.name, once.fields[1].type) == (twice.name, twice.fields[1].type) == ("n.R", "n.E")


@pytest.mark.parametrize(
    ("avro_type", "given_default", "default"),
    [
        ("bytes", "\u00ff\u0001", b"\xff\x01"),
        (["bytes", "null"], "a", b"a"),
        ({"type": "fixed", "name": "F", "size": 1}, "\u0080", b"\x80"),
        ("string", "a", "a"),
        (["null", "bytes"], None, None),
    ],
)
def test_defaults_of_bytes_are_bytes(avro_type: Any, given_default: Any, default: Any) -> None:
    field = record_type_from_schema(record(avro_type, default=given_default)).field("a")
    assert field is not None
    assert (field.has_default, field.default) == (True, default)


def test_only_records_are_taken() -> None:
    with pytest.raises(ValueError, match="got an Avro 'enum', expected a record"):
        record_type_from_schema({"type": "enum", "name": "E", "symbols": ["A"]})
    with pytest.raises(TypeError, match="got 3, expected an Avro type"):
        plain(3)


def test_fingerprint_is_the_published_one_in_little_endian_and_blind_to_docs() -> None:
    # A reference value of Avro's own test-suite for the canonical form "int" is 7275d51a3f395c8f.
    assert fastavro.schema.fingerprint('"int"', "CRC-64-AVRO") == "8f5c393f1ad57572"
    schema = record("int")
    assert fingerprint(schema) == fingerprint(record({"type": "int", "logicalType": "date"}, doc="text"))
    assert fingerprint(schema) != fingerprint(record("long"))


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_are_fastavros(number: int) -> None:
    out = BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert zigzag_varint(number) == out.getvalue()
