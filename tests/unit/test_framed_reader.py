from __future__ import annotations

import pytest

from demo.broken import schema_without
from schemas.load import load_schema
from tests.helpers.workers import FRAMING, SCHEMA, avro, event, features
from worker.avro import Schema
from worker.errors import SchemaUnavailableError, UnreachableError
from worker.framed_reader import FramedReader
from worker.framing import ConfluentFraming, Refusal, SingleObjectFraming
from worker.records import Reason

NONSENSE = {"type": "record", "name": "x", "fields": [{"name": "a", "type": "nonsense"}]}


def test_dates_stay_days_and_older_writers_are_resolved() -> None:
    framing = SingleObjectFraming([SCHEMA, schema_without(SCHEMA, "promo")])
    reader = FramedReader(SCHEMA, framing)
    content = reader.read(event(3, 19_900))
    assert isinstance(content, dict)
    assert (content["sku_id"], content["as_of"], content["sales"]) == ("sku3", 19_900, features(3)["sales"])
    older = FramedReader(schema_without(SCHEMA, "promo"), framing).read(event(3))
    assert isinstance(older, dict)
    assert "promo" not in older


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"short", Reason.TRUNCATED),
        (b"no magic at all", Reason.BAD_MAGIC),
        (event(1)[:-3], Reason.TRUNCATED),
        (event(1) + b"x", Reason.TRAILING_BYTES),
    ],
)
def test_what_cannot_be_read_has_a_reason(value: bytes, reason: Reason) -> None:
    found = FramedReader(SCHEMA, FRAMING).read(value)
    assert isinstance(found, Refusal)
    assert found.reason == reason


def test_another_record_is_refused() -> None:
    forecast = load_schema(None, "sku_forecast")
    found = FramedReader(forecast, SingleObjectFraming([SCHEMA, forecast])).read(event(1))
    assert isinstance(found, Refusal)
    assert found.reason == Reason.MALFORMED


def test_a_registry_that_is_down_and_one_that_has_nonsense() -> None:
    def down(_: int) -> Schema:
        raise SchemaUnavailableError((), "id 7 can't be fetched")

    value = b"\x00\x00\x00\x00\x07" + avro("sku_features", features(1))
    with pytest.raises(UnreachableError, match=r"id 7 can't be fetched; check registry\.url"):
        FramedReader(SCHEMA, ConfluentFraming(ask=down, clock_s=lambda: 0.0)).read(value)
    nonsense = ConfluentFraming(ask=lambda _: NONSENSE, clock_s=lambda: 0.0)
    found = FramedReader(SCHEMA, nonsense).read(value)
    assert isinstance(found, Refusal)
    assert found.reason == Reason.UNKNOWN_SCHEMA
