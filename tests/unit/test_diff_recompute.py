"""Which event a forecast is computed of anew, with a reader that has the events in a list."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest

from tests.helpers.engines import FakeEngine
from tests.helpers.workers import FRAMING, SCHEMA, event, key
from worker.decode import Decoder
from worker.diff_recompute import EventDates, Recomputed, recompute
from worker.forecast_table import Gathered, Row
from worker.records import Record, Span

LAYOUT = (3, (0.1, 0.5, 0.9))


class Events:
    """One event for each offset of partition 0."""

    def __init__(self, *as_of: int) -> None:
        self._records = [
            Record(topic="in", partition=0, offset=n, timestamp_ms=0, key=key(n), value=event(n, day))
            for n, day in enumerate(as_of)
        ]

    def spans(self) -> Mapping[int, Span]:
        return {0: Span(0, len(self._records))}

    def read(self, spans: Mapping[int, Span]) -> Generator[Record]:
        yield from self._records[spans[0].first_offset : spans[0].next_offset]


def recomputed(published: Gathered, *as_of: int, schema: Any = SCHEMA, by_date: bool = False) -> Recomputed:
    engine = FakeEngine({"sales": 30}, max_rows=8)
    dates = EventDates(schema)
    decoder = Decoder(
        reader_schema=schema,
        inputs=engine.spec.inputs,
        key_fields=("sku_id", "store_id"),
        echo_fields=dates.echo_fields,
        framing=FRAMING,
        max_value_bytes=10_000,
    )
    reader: Any = Events(*as_of)
    return recompute(published, reader, decoder, engine, dates, by_date=by_date)


def published(*rows: tuple[int, int], by_date: bool = False) -> Gathered:
    """A forecast of event n, made on that day, for each (n, day)."""
    made = Gathered(by_date=by_date)
    for number, as_of in rows:
        made.put(key(number), Row(as_of=as_of, layout=LAYOUT, values=bytes(36), source=(0, number)))
    return made


@pytest.mark.parametrize("by_date", [False, True])
def test_an_event_of_another_day_at_that_position_is_another_event(*, by_date: bool) -> None:
    found = recomputed(published((0, 19_900), (1, 19_900), by_date=by_date), 19_900, 19_901, by_date=by_date)
    assert [unit[0] for unit in found.forecasts.rows] == [key(0)]
    assert (found.different, found.gone, found.rejected, found.bad) == (1, 0, 0, 0)


def test_an_event_of_another_key_at_that_position_is_another_event() -> None:
    before = published((0, 19_900))
    before.put(key(7), Row(as_of=19_900, layout=LAYOUT, values=bytes(36), source=(0, 1)))
    found = recomputed(before, 19_900, 19_900)
    assert (list(found.forecasts.rows), found.different) == ([(key(0), None)], 1)


def test_events_that_have_no_day_are_told_by_their_key() -> None:
    fields: Any = SCHEMA["fields"]
    without: dict[str, Any] = {**SCHEMA, "fields": [each for each in fields if each["name"] != "as_of"]}
    assert EventDates(without).echo_fields == ()
    assert EventDates(without).of(b"") is None
    assert EventDates(SCHEMA).of(b"\x02") == 1
