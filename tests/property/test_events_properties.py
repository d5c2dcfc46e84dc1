from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demo.events import EventWriter, single_object_header, writer_schema
from demo.series import COVARIATES, SeriesSet
from worker.avro import zigzag_varint

IDS = st.lists(st.tuples(st.text(max_size=70), st.text(max_size=70)), min_size=1, max_size=4)


@given(
    ids=IDS,
    covariates=st.sets(st.sampled_from(COVARIATES)),
    first_date=st.integers(-40_000, 2_900_000),
    seed=st.integers(0, 2**32),
)
def test_equal_to_fastavro(ids: list[tuple[str, str]], covariates: set[str], first_date: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (len(ids), 45)
    values: dict[str, Any] = {
        name: random.normal(size=shape).astype(np.float32) for name in ["sales", *sorted(covariates)]
    }
    dates = np.arange(first_date, first_date + 45, dtype=np.int32)
    skus, stores = zip(*ids, strict=True)
    series = SeriesSet(name="made", sku_ids=skus, store_ids=stores, dates=dates, **values)
    as_of = first_date + 30
    writer = EventWriter(series)
    plain = writer_schema(tuple(covariates))
    for field in plain["fields"]:
        if field["name"] == "as_of":
            field["type"] = "int"  # fastavro would want a date object, which ends in the year 9999
    features = series.windows(as_of)
    for index, event in enumerate(writer.events_of(as_of)):
        record = {"sku_id": skus[index], "store_id": stores[index], "as_of": as_of}
        out = io.BytesIO()
        fastavro.schemaless_writer(out, plain, record | {key: value[index].tolist() for key, value in features.items()})
        assert event.value == single_object_header(plain) + out.getvalue()
        assert event.key == f"{skus[index]}|{stores[index]}".encode()


@given(st.integers(-(2**63), 2**63 - 1))
def test_varint_is_avros_long(number: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", number)
    assert zigzag_varint(number) == out.getvalue()
