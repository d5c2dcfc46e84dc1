from __future__ import annotations

from demo.events import EventWriter, single_object_header, writer_schema
from demo.series import COVARIATES, PAST_COVARIATES
from schemas.load import load_schema
from tests.helpers.series import made_series


def test_header_is_marker_and_the_fingerprint_of_the_specification() -> None:
    # The Avro specification's example of CRC-64-AVRO: fingerprint of "null" is 63dd24e7cc258f8a, sent little-endian.
    assert single_object_header("null").hex() == "c301" + "8a8f25cce724dd63"  # type: ignore[arg-type]


def test_absent_covariates_are_left_out_of_the_writer_schema() -> None:
    names = {field["name"] for field in writer_schema(("promo",))["fields"]}
    assert names == {"sku_id", "store_id", "as_of", "sales", "promo", "promo_next"}
    assert writer_schema((*COVARIATES, *PAST_COVARIATES)) == load_schema(None, "sku_features")


def test_one_event_per_series_keyed_by_product_and_store() -> None:
    series = made_series()
    events = list(EventWriter(series).events_of(series.as_of_dates(1)[0]))
    assert [event.key.decode() for event in events] == [
        f"{sku}|{store}" for sku, store in zip(series.sku_ids, series.store_ids, strict=True)
    ]
