from __future__ import annotations

import numpy as np
import pytest

from demo.broken import BrokenEvent, broken_events, mixed, schema_without
from demo.events import Event, EventWriter, writer_schema
from tests.helpers.series import made_series
from worker.decode import Decoder
from worker.framing import SingleObjectFraming
from worker.records import Reason, Record, Records

SERIES = made_series(covariates=("promo", "holiday"))
WRITER = EventWriter(SERIES)
GOOD = list(WRITER.events_of(SERIES.as_of_dates(1)[0]))


def test_every_reason_that_an_input_can_have_but_the_calendars_is_there_once() -> None:
    others = {Reason.BAD_FORECAST, Reason.ENGINE_FAILED, Reason.OUT_OF_CALENDAR}
    reasons = [event.reason for event in broken_events(GOOD[0], WRITER.schema)]
    assert reasons == [reason for reason in Reason if reason not in others]


def test_mixed_in_one_in_five_in_turn() -> None:
    broken = broken_events(GOOD[0], WRITER.schema)[:2]
    events = list(mixed(GOOD * 3, broken, one_in=5))
    places = [index for index, event in enumerate(events) if isinstance(event, BrokenEvent)]
    assert places == [4, 9, 14]
    assert [events[place] for place in places] == [broken[0], broken[1], broken[0]]


def test_schema_without_a_field_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no field 'colour'"):
        schema_without(WRITER.schema, "colour")


def test_the_workers_decoder_gives_each_its_reason() -> None:
    schemas = [writer_schema(("promo", "discount", "holiday", "temperature")), WRITER.schema]
    foreign = schema_without(WRITER.schema, "sales")
    inputs = {"sales": 30, "holiday": 30, "holiday_next": 14}
    decoder = Decoder(
        reader_schema=schemas[0],
        inputs=inputs,
        key_fields=["sku_id", "store_id"],
        echo_fields=[],
        framing=SingleObjectFraming([*schemas, foreign]),
        max_value_bytes=5000,
    )
    broken = broken_events(GOOD[0], WRITER.schema, max_value_bytes=5000)
    events: list[Event | BrokenEvent] = [GOOD[0], *broken, GOOD[1]]
    records = Records.of(
        [
            Record(topic="t", partition=0, offset=offset, timestamp_ms=-1, key=event.key, value=event.value)
            for offset, event in enumerate(events)
        ]
    )
    columns = {name: np.zeros((len(events), width), dtype=np.float32) for name, width in inputs.items()}
    decoded = decoder.decode(records, columns, 0)
    assert decoded.sources.tolist() == [0, len(events) - 1]
    assert [rejection.reason for _, rejection in decoded.rejections] == [event.reason for event in broken]
