from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.helpers.avro import GUARD_ROWS, UNTOUCHED, columns_for, decode, records_of
from tests.unit.test_decode import CASE, EVENT, GOOD
from worker.avro import Schema
from worker.decode import Decoder
from worker.errors import ContractError, SchemaUnavailableError
from worker.framing import ConfluentFraming, Refusal, SingleObjectFraming


def test_during_an_outage_nothing_is_written_and_the_waiting_records_are_named() -> None:
    def ask(schema_id: int) -> Schema | Refusal:
        raise SchemaUnavailableError((), f"id {schema_id} can't be fetched")

    framing = ConfluentFraming(ask=ask, clock_s=lambda: 0.0, known={1: EVENT})
    known, unknown = (b"\x00" + schema_id.to_bytes(4, "big") + CASE.message(GOOD)[10:] for schema_id in (1, 2))
    decoder = CASE.decoder(framing=framing)
    records = records_of([known, unknown, known, unknown])
    columns = columns_for(CASE.inputs, 4)
    with pytest.raises(SchemaUnavailableError, match="id 2 can't be fetched") as caught:
        decoder.decode(records, columns, GUARD_ROWS)
    assert caught.value.indices == (1, 3)
    assert all((column == UNTOUCHED).all() for column in columns.values())
    assert decode(decoder, CASE, records.select([0, 2])).keys == [b"a|b", b"a|b"]


def test_a_registry_schema_that_is_no_schema_rejects_its_records() -> None:
    framing = ConfluentFraming(ask=lambda _: {"type": "record", "fields": 3}, clock_s=lambda: 0.0)
    result = decode(CASE.decoder(framing=framing), CASE, records_of([b"\x00\x00\x00\x00\x09abc"]))
    assert [reason for _, reason, _ in result.rejections] == ["unknown_schema_id"]


def test_memory_that_runs_out_is_no_fault_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> object:
        raise MemoryError

    monkeypatch.setattr("worker.decode.compile_plan", full)
    with pytest.raises(MemoryError):
        CASE.decoder().decode(records_of([CASE.message(GOOD)]), columns_for(CASE.inputs, 1), 0)


@pytest.mark.parametrize(
    ("start", "rows", "width"), [(1, 2, 3), (-1, 9, 3), (0, 9, 4)], ids=["no room", "before the start", "other width"]
)
def test_columns_must_have_room_and_the_models_width(start: int, rows: int, width: int) -> None:
    columns = {"sales": np.zeros((rows, width), np.float32), "price": np.zeros(rows, np.float32)}
    with pytest.raises(ValueError, match="column sales: got shape"):
        CASE.decoder().decode(records_of([CASE.message(GOOD)] * 2), columns, start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"colour": 3}}, "field colour: not in the feature schema Event; it has sku, store"),
        ({"inputs": {"sales": None}}, "field sales: got Avro type .* expected a number"),
        ({"inputs": {"price": 3}}, "field price: got Avro type double, expected an array of numbers, 3 of them"),
        ({"inputs": {"sku": None}}, "field sku: got Avro type string, expected a number"),
        ({"key_fields": ("price",)}, r"key field price: got \['double'\], expected one of"),
        ({"key_fields": ()}, "got no key fields"),
        ({"reader": {"type": "record", "name": "X", "fields": [{"name": "a"}]}}, "isn't a valid Avro record"),
    ],
)
def test_a_contract_that_does_not_hold_is_found_at_the_start(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        replace(CASE, **change).decoder(framing=SingleObjectFraming([EVENT]))


def test_decoders_do_not_share_what_they_learn() -> None:
    first, second = CASE.decoder(), CASE.decoder()
    decode(first, CASE, records_of([CASE.message(GOOD)]))
    assert isinstance(second, Decoder)
    assert second._writers == {}
