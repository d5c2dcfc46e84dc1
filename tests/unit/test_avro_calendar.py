import datetime as dt

import pytest

from tests.helpers.avro import Case
from worker.avro_calendar import LIMITS, calendar_limits
from worker.errors import ContractError


def test_limits_are_those_of_pythons_calendar() -> None:
    epoch = dt.date(1970, 1, 1)
    assert LIMITS["date"] == ((dt.date.min - epoch).days, (dt.date.max - epoch).days)
    start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    edges = [
        dt.datetime.combine(dt.date.min, dt.time.min, dt.UTC),
        dt.datetime.combine(dt.date.max, dt.time.max, dt.UTC),
    ]
    micros = tuple((edge - start) // dt.timedelta(microseconds=1) for edge in edges)
    assert LIMITS["timestamp-micros"] == micros
    assert LIMITS["timestamp-millis"] == tuple(edge // 1000 for edge in micros)


def test_dates_are_found_in_unions_and_others_left() -> None:
    date = {"type": "int", "logicalType": "date"}
    kinds = {"a": date, "b": ["null", date], "c": "int", "d": {"type": date}, "e": {"type": "int", "logicalType": "x"}}
    schema = {"type": "record", "name": "X", "fields": [{"name": n, "type": kind} for n, kind in kinds.items()]}
    assert calendar_limits(schema, ["a", "b", "c", "d", "e"]) == dict.fromkeys("abd", LIMITS["date"])
    assert calendar_limits(schema, ["c"]) == {}


def test_a_default_that_is_no_date_is_refused() -> None:
    schema = {
        "type": "record",
        "name": "X",
        "fields": [
            {"name": "sku_id", "type": "string"},
            {"name": "as_of", "type": {"type": "int", "logicalType": "date"}, "default": 3_000_000},
        ],
    }
    case = Case(writer=schema, reader=schema, inputs={}, key_fields=["sku_id"], echo_fields=["as_of"])
    with pytest.raises(ContractError, match="field as_of: got default 3000000, expected -719162 to 2932896"):
        case.decoder()
