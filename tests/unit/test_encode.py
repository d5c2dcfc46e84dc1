from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from schemas.load import load_schema
from worker.encode import DeadLetterEncoder, ForecastEncoder, Provenance, echo_fields_of
from worker.errors import ContractError

FEATURES: dict[str, Any] = load_schema(None, "sku_features")
FORECAST: dict[str, Any] = load_schema(None, "sku_forecast")
ECHO = ("sku_id", "store_id", "as_of")
PROVENANCE = Provenance(model="m", model_version="1", engine_digest="d", precision="fp32", fallback_reason=None)


def encoder(schema: dict[str, Any] = FORECAST) -> ForecastEncoder:
    return ForecastEncoder(schema=schema, prefix=b"", echo_fields=ECHO, quantiles=(0.1, 0.5, 0.9), horizon=14)


def changed(index: int, **field: Any) -> dict[str, Any]:
    schema = copy.deepcopy(FORECAST)
    schema["fields"][index].update(field)
    return schema


def test_the_packaged_forecast_repeats_key_and_day() -> None:
    assert echo_fields_of(FEATURES, FORECAST) == ECHO


def test_echo_of_another_type_is_refused_with_both_types() -> None:
    with pytest.raises(ContractError, match="field as_of of the forecast schema: got long, expected int"):
        echo_fields_of(FEATURES, changed(2, type="long"))


def test_a_field_that_the_event_shares_by_chance_is_no_echo() -> None:
    features = copy.deepcopy(FEATURES)
    features["fields"].append({"name": "model", "type": "string"})
    forecast = {**FORECAST, "fields": [field for field in FORECAST["fields"] if field["name"] in {*ECHO, "model"}]}
    assert echo_fields_of(features, forecast) == ECHO


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (changed(0, name="sku"), r"starts with \('sku', 'store_id', 'as_of'\), expected the event's \('sku_id'"),
        (changed(3, name="levels"), "field levels is unknown, expected one of quantile_levels, quantiles"),
        (changed(6, type="int"), "field source_offset: got int, expected long"),
        (changed(12, type=["string", "null"], default=""), "field fallback_reason: got .'string', 'null'., expected"),
        ({**FORECAST, "fields": FORECAST["fields"][:3]}, "no field quantiles"),
    ],
)
def test_a_schema_that_it_cannot_fill_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        encoder(schema)


@pytest.mark.parametrize(
    ("rows", "partitions", "shape"),
    [(2, 2, (2, 14, 2)), (2, 2, (3, 14, 3)), (2, 1, (2, 14, 3)), (2, 2, (2, 13, 3))],
)
def test_sizes_must_agree(rows: int, partitions: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected values \(2, 14, 3\) and 2 of each"):
        encoder().encode(
            echoes=[b""] * rows,
            partitions=np.zeros(partitions, np.int32),
            offsets=np.zeros(rows, np.int64),
            values=np.zeros(shape, np.float32),
            provenance=PROVENANCE,
            generated_at_ms=0,
        )


def test_rows_keep_their_order_where_offsets_grow_a_byte() -> None:
    offsets = np.array([8191, 8192, 63, 64, 8190], dtype=np.int64)
    arguments: dict[str, Any] = {
        "partitions": np.array([0, 64, 0, 64, 0], np.int32),
        "values": np.arange(5 * 14 * 3, dtype=np.float32).reshape(5, 14, 3),
        "provenance": PROVENANCE,
        "generated_at_ms": 5,
    }
    together = encoder().encode(echoes=[b"%d" % i for i in range(5)], offsets=offsets, **arguments)
    for i in range(5):
        cut = {"partitions": arguments["partitions"][i : i + 1], "values": arguments["values"][i : i + 1]}
        alone = encoder().encode(echoes=[b"%d" % i], offsets=offsets[i : i + 1], **(arguments | cut))
        assert together[i] == alone[0]


def test_a_dead_letter_schema_may_not_want_more_than_there_is() -> None:
    schema: dict[str, Any] = copy.deepcopy(load_schema(None, "dead_letter"))
    schema["fields"].append({"name": "colour", "type": "string", "default": "red"})
    DeadLetterEncoder(schema, b"", 10)
    del schema["fields"][-1]["default"]
    with pytest.raises(ContractError, match=r"field colour of forecast\.v1\.DeadLetter: no dead letter has one"):
        DeadLetterEncoder(schema, b"", 10)
