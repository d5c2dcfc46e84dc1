from __future__ import annotations

import pytest

from tests.helpers.clock import ManualClock
from worker.avro import Schema, fingerprint
from worker.errors import ContractError, SchemaUnavailableError
from worker.framing import ConfluentFraming, Refusal, SingleObjectFraming
from worker.records import Reason

SCHEMA: Schema = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "float"}]}
OTHER: Schema = {"type": "record", "name": "B", "fields": []}


class Registry:
    """Knows id 7. Counts questions; down while `is_down`."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_down = False
        self.now_s = 0.0
        self.schemas = {7: SCHEMA}

    def ask(self, schema_id: int) -> Schema | Refusal:
        self.asked.append(schema_id)
        if self.is_down:
            raise SchemaUnavailableError((), f"no answer for {schema_id}")
        unknown = Refusal(reason=Reason.UNKNOWN_SCHEMA, detail=f"no id {schema_id}")
        return self.schemas.get(schema_id, unknown)

    def framing(self) -> ConfluentFraming:
        return ConfluentFraming(ask=self.ask, clock_s=lambda: self.now_s, unknown_ttl_s=60.0, outage_ttl_s=2.0)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def prefix(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big")


def test_single_object_knows_its_schemas_by_fingerprint() -> None:
    framing = SingleObjectFraming([SCHEMA])
    named = framing.prefix_for(SCHEMA)
    assert (len(named), named[:2], named[2:]) == (framing.prefix_bytes, b"\xc3\x01", fingerprint(SCHEMA))
    assert framing.schema_of(named) is SCHEMA


def test_single_object_refuses_other_fingerprints_and_other_magic() -> None:
    framing = SingleObjectFraming([SCHEMA])
    unknown = framing.schema_of(framing.prefix_for(OTHER))
    assert isinstance(unknown, Refusal)
    assert unknown.reason is Reason.UNKNOWN_SCHEMA
    assert fingerprint(SCHEMA).hex() in unknown.detail
    bad = framing.schema_of(b"\x00\x00" + bytes(8))
    assert isinstance(bad, Refusal)
    assert (bad.reason, "expected c3 01" in bad.detail) == (Reason.BAD_MAGIC, True)


def test_confluent_asks_once_for_a_schema(registry: Registry) -> None:
    framing = registry.framing()
    assert framing.schema_of(prefix(7)) is SCHEMA
    registry.now_s = 1e9
    assert framing.schema_of(prefix(7)) is SCHEMA
    assert registry.asked == [7]
    assert framing.prefix_for(SCHEMA) == prefix(7)


def test_confluent_refuses_another_magic_without_asking(registry: Registry) -> None:
    refusal = registry.framing().schema_of(b"\x01" + bytes(4))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.BAD_MAGIC
    assert registry.asked == []


def test_an_unknown_id_is_asked_for_again_when_its_time_is_over(registry: Registry) -> None:
    framing = registry.framing()
    assert isinstance(framing.schema_of(prefix(8)), Refusal)
    registry.schemas[8] = OTHER
    registry.now_s = 59.0
    assert isinstance(framing.schema_of(prefix(8)), Refusal)
    registry.now_s = 60.0
    assert framing.schema_of(prefix(8)) is OTHER
    assert registry.asked == [8, 8]


def test_known_ids_go_on_during_an_outage_and_the_outage_is_felt_once(registry: Registry) -> None:
    framing = registry.framing()
    framing.schema_of(prefix(7))
    registry.is_down = True
    for schema_id in (8, 9, 8):
        with pytest.raises(SchemaUnavailableError, match="no answer for 8"):
            framing.schema_of(prefix(schema_id))
    assert framing.schema_of(prefix(7)) is SCHEMA
    assert registry.asked == [7, 8]
    registry.is_down, registry.now_s = False, 2.0
    assert isinstance(framing.schema_of(prefix(9)), Refusal)
    assert registry.asked == [7, 8, 9]


def test_random_ids_do_not_fill_the_memory(registry: Registry) -> None:
    framing = registry.framing()
    for schema_id in range(100, 4000):
        framing.schema_of(prefix(schema_id))
    assert len(framing._refusals) <= 1024


def test_ids_given_at_the_start_are_known_and_others_have_no_prefix(registry: Registry) -> None:
    framing = ConfluentFraming(ask=registry.ask, clock_s=lambda: 0.0, known={3: OTHER})
    assert framing.schema_of(prefix(3)) is OTHER
    assert framing.prefix_for(dict(OTHER)) == prefix(3)
    assert registry.asked == []
    with pytest.raises(ContractError, match=r"schema 'A' has no registry id here; got ids \[3\]"):
        framing.prefix_for(SCHEMA)


def test_made_up_ids_take_a_bounded_time_and_all_are_asked_for_in_the_end() -> None:
    clock = ManualClock()
    asked: list[int] = []

    def slow(schema_id: int) -> Schema | Refusal:
        asked.append(schema_id)
        clock.advance(0.1)
        return Refusal(reason=Reason.UNKNOWN_SCHEMA, detail="unknown")

    framing = ConfluentFraming(ask=slow, clock_s=clock, ask_budget_s=1.0)
    for stretch in range(10):
        began_s = clock()
        for schema_id in range(10 * stretch, 10 * stretch + 10):
            framing.schema_of(prefix(schema_id))
        with pytest.raises(SchemaUnavailableError, match="takes too long"):
            framing.schema_of(prefix(10 * stretch + 10))
        assert clock() - began_s == pytest.approx(1.0)
        clock.advance(2.0)
    assert asked == list(range(100))
