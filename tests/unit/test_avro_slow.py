from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.avro import encoded
from worker.avro import record_type_from_schema
from worker.avro_plan import Reading, compile_plan
from worker.avro_slow import Row, SlowReader
from worker.framing import Refusal


def read(kind: Any, value: Any, *, read_as: Any = None, width: int | None = None) -> Row | Refusal:
    def schema(of: Any) -> dict[str, Any]:
        return {
            "type": "record",
            "name": "R",
            "fields": [{"name": "k", "type": ["null", "string"]}, {"name": "x", "type": of}],
        }

    reading = Reading(inputs={"x": width}, key_fields=("k",), echo_fields=("k",))
    writer, reader = record_type_from_schema(schema(kind)), record_type_from_schema(schema(read_as or kind))
    data = b"<>" + encoded(schema(kind), {"k": "key", "x": value})
    return SlowReader(reader, reading).read(compile_plan(writer, reader, reading), data, 2)


@pytest.mark.parametrize(
    ("kind", "value"), [("int", -5), ("long", 2**53 + 1), ("float", 0.5), ("double", 1e-300), ("boolean", True)]
)
def test_scalars_become_float32_in_one_rounding(kind: str, value: float) -> None:
    row = read(kind, value)
    assert isinstance(row, Row)
    assert row.inputs["x"] == np.array(value).astype(np.float32)
    assert (row.key, row.echo) == (b"key", b"\x02\x06key")
    assert row.inputs["x"].dtype == np.float32


def test_long_to_float_promotion() -> None:
    row = read("long", 3, read_as="float")
    assert isinstance(row, Row)
    assert row.inputs["x"] == 3.0


@pytest.mark.parametrize("items", ["int", "boolean", "double", ["null", "int", "double"]])
def test_arrays(items: Any) -> None:
    row = read({"type": "array", "items": items}, [1, 0], width=2)
    assert isinstance(row, Row)
    assert row.inputs["x"].tolist() == [1.0, 0.0]


def test_arrays_without_a_width_to_match_are_refused() -> None:
    refusal = read({"type": "array", "items": "int"}, [], width=2)
    assert isinstance(refusal, Refusal)
    assert refusal.detail == "field x: got 0 values, expected 2"


def test_an_enum_symbol_that_the_reader_does_not_have_is_malformed() -> None:
    def enum(*symbols: str) -> dict[str, Any]:
        return {"type": "enum", "name": "E", "symbols": list(symbols)}

    refusal = read(enum("A", "B"), "B", read_as=enum("A"))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason.value, "can't be read as R" in refusal.detail) == ("malformed", True)


def test_memory_that_runs_out_is_no_fault_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr("worker.avro_slow.fastavro.schemaless_reader", full)
    with pytest.raises(MemoryError):
        read("int", 1)
