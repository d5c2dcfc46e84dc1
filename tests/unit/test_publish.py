from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import fastavro
import numpy as np
import pytest

from schemas.load import load_schema
from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine, expected_forecasts
from tests.helpers.forecasting import checked
from tests.helpers.gathering import INPUTS, Event, gather
from worker.batching import Batch, Batcher, CutReason
from worker.deadline import Deadline
from worker.encode import DeadLetterEncoder, ForecastEncoder
from worker.engine import EngineSpec, Forecasts
from worker.publish import Publisher, Routing, latencies_s
from worker.records import Positions, Reason
from worker.statistics import Stage, Statistics, Tallies
from worker.transaction import Outgoing

FORECAST: dict[str, Any] = {
    "type": "record",
    "name": "Forecast",
    "fields": [
        {"name": "quantiles", "type": {"type": "array", "items": {"type": "array", "items": "float"}}},
        *({"name": f"source_{name}", "type": kind} for name, kind in (("partition", "int"), ("offset", "long"))),
        {"name": "generated_at", "type": "long"},
        *({"name": name, "type": "string"} for name in ("model", "model_version", "engine_digest", "precision")),
        {"name": "fallback_reason", "type": ["null", "string"]},
    ],
}
DEAD_LETTER = load_schema(None, "dead_letter")
ROUTING = Routing(forecasts="out", dead_letters="dead", same_partitions=True, same_dead_letter_partitions=True)
NOW_MS = 1_700_000_000_000


class Noted:
    """A delivery that only notes what it was given."""

    def __init__(self) -> None:
        self.given: list[Outgoing] = []
        self.deadlines: list[Deadline] = []
        self.is_open = False

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        sizes = {len(outgoing.keys), len(outgoing.values), len(outgoing.timestamps_ms)}
        sizes |= {len(each) for each in (outgoing.partitions, outgoing.headers) if each is not None}
        assert len(sizes) == 1, "columns of different lengths"
        self.given.append(outgoing)
        self.deadlines.append(deadline)

    def commit(self, positions: Positions, deadline: Deadline) -> None:
        raise NotImplementedError

    def abort(self, deadline: Deadline) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Bench:
    """Batcher and fake engine before a publisher, a notebook behind it."""

    def __init__(self, *, coalesce: bool = False) -> None:
        self.clock = ManualClock()
        self.delivery = Noted()
        self.tallies = Tallies()
        self.engine = FakeEngine(INPUTS, max_rows=16)
        self.batcher = Batcher(max_rows=16, linger_s=0.0, max_wait_s=1.0, coalesce=coalesce)
        self.encoders: list[EngineSpec] = []
        self.publisher = Publisher(
            delivery=self.delivery,
            encoder_for=self._encoder,
            dead_letters=DeadLetterEncoder(DEAD_LETTER, b"", max_value_bytes=100),
            tallies=self.tallies,
            clock=self.clock,
            wall_clock_ms=lambda: NOW_MS,
        )

    def batch(self, *events: Event) -> Batch:
        if self.batcher.slot is None:
            slot = self.engine.acquire()
            assert slot is not None
            self.batcher.open(slot)
        gather(self.batcher, events, 0.0)
        batch = self.batcher.seal(CutReason.IDLE)
        assert batch is not None
        return batch

    def forecasts(self, batch: Batch) -> Forecasts | None:
        return None if batch.slot is None else self.engine.collect(self.engine.submit(batch.slot, batch.rows))

    def publish(self, batch: Batch, forecasts: Forecasts | None, routing: Routing = ROUTING) -> list[Outgoing]:
        self.delivery.given.clear()
        self.publisher.publish(batch, checked(batch, forecasts), routing, Deadline.after(5.0, self.clock))
        return self.delivery.given

    def publish_events(self, *events: Event, routing: Routing = ROUTING) -> list[Outgoing]:
        batch = self.batch(*events)
        return self.publish(batch, self.forecasts(batch), routing)

    def counted(self) -> Statistics:
        return self.tallies.snapshot(self.clock())

    def _encoder(self, spec: EngineSpec) -> ForecastEncoder:
        self.encoders.append(spec)
        return ForecastEncoder(
            schema=FORECAST, prefix=b"", echo_fields=(), quantiles=spec.quantiles, horizon=spec.horizon
        )


def places(outgoing: Outgoing) -> list[tuple[bytes | None, int | None]]:
    """Key and source offset (which the timestamp tells) of each message; None for a tombstone."""
    rows = zip(outgoing.keys, outgoing.values, outgoing.timestamps_ms, strict=True)
    return [(key, None if value is None else timestamp_ms // 10) for key, value, timestamp_ms in rows]


def read(schema: Any, message: bytes | None, skip: bytes = b"") -> dict[str, Any]:
    assert message is not None
    assert message.startswith(skip)
    content = fastavro.schemaless_reader(io.BytesIO(message[len(skip) :]), fastavro.parse_schema(schema), None)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_row_becomes_a_message_with_its_key_place_time_and_origin(bench: Bench) -> None:
    batch = bench.batch(Event(3, 7, "a"), Event(1, 9, "b"))
    forecasts = bench.forecasts(batch)
    assert forecasts is not None
    assert batch.slot is not None
    wanted = expected_forecasts(batch.slot.columns, 2, horizon=3, quantiles=(0.1, 0.5, 0.9))
    (outgoing,) = bench.publish(batch, forecasts)
    assert (outgoing.topic, outgoing.keys, outgoing.partitions) == ("out", [b"a", b"b"], [3, 1])
    assert (outgoing.timestamps_ms, outgoing.headers) == ([70, 90], None)
    for row, (message, place) in enumerate(zip(outgoing.values, [(3, 7), (1, 9)], strict=True)):
        content = read(FORECAST, message, skip=batch.echoes[row])
        assert (content["source_partition"], content["source_offset"]) == place
        assert content["generated_at"] == NOW_MS
        assert (content["model"], content["model_version"], content["precision"]) == ("fake", "1", "fp32")
        assert content["engine_digest"] == bench.engine.spec.digest
        assert content["fallback_reason"] is None
        np.testing.assert_array_equal(np.array(content["quantiles"], np.float32), wanted[row].T)


def test_messages_go_under_the_callers_deadline(bench: Bench) -> None:
    bench.publish_events(Event(0, 0), Event(0, 1, kind="rejection"))
    assert [deadline.remaining_s for deadline in bench.delivery.deadlines] == [5.0, 5.0]


def test_an_encoder_is_made_once_for_each_shape_however_many_versions_come_by(bench: Bench) -> None:
    for offset in range(3):
        bench.publish_events(Event(0, offset))
        bench.engine = FakeEngine(INPUTS, max_rows=16)
    assert len(bench.encoders) == 1
    bench.engine = FakeEngine(INPUTS, max_rows=16, digest="0" * 64)
    bench.publish_events(Event(0, 3))
    bench.engine = FakeEngine(INPUTS, max_rows=16, horizon=2)
    bench.publish_events(Event(0, 4))
    assert [spec.horizon for spec in bench.encoders] == [3, 2]


@pytest.mark.parametrize("kinds", ["row tombstone", "tombstone", "row"])
def test_where_partition_counts_differ_the_key_decides(bench: Bench, kinds: str) -> None:
    events = [Event(2, offset, kind=kind) for offset, kind in enumerate(kinds.split())]  # type: ignore[arg-type]
    (outgoing,) = bench.publish_events(*events, routing=replace(ROUTING, same_partitions=False))
    assert outgoing.partitions is None
    assert len(outgoing.values) == len(events)


def test_tombstones_leave_in_their_place(bench: Bench) -> None:
    events = [
        Event(0, 1, "x", "tombstone"),
        Event(0, 2, "a"),
        Event(1, 3, "a", "tombstone"),
        Event(0, 4, "y", "tombstone"),
        Event(0, 5, "b"),
        Event(0, 6, "b", "tombstone"),
    ]
    (outgoing,) = bench.publish_events(*events)
    assert places(outgoing) == [(b"x", None), (b"a", 2), (b"a", None), (b"y", None), (b"b", 5), (b"b", None)]
    assert outgoing.partitions == [0, 0, 1, 0, 0, 0]
    assert outgoing.timestamps_ms == [10, 20, 30, 40, 50, 60]


def test_tombstones_alone_need_no_engine(bench: Bench) -> None:
    (outgoing,) = bench.publish_events(Event(4, 1, "x", "tombstone"), Event(4, 2, "y", "tombstone"))
    assert (outgoing.topic, outgoing.keys, outgoing.values) == ("out", [b"x", b"y"], [None, None])
    assert (outgoing.partitions, outgoing.timestamps_ms) == ([4, 4], [10, 20])


def test_tombstones_among_superseded_rows_keep_their_place() -> None:
    bench = Bench(coalesce=True)
    events = [Event(0, 1, "a"), Event(0, 2, "b"), Event(0, 3, "x", "tombstone"), Event(0, 4, "a"), Event(0, 5, "a")]
    (outgoing,) = bench.publish_events(*events)
    assert places(outgoing) == [(b"b", 2), (b"x", None), (b"a", 5)]


def test_rejections_become_dead_letters(bench: Bench) -> None:
    (letters,) = bench.publish_events(Event(2, 5, "bad", "rejection"))
    assert (letters.topic, letters.keys, letters.partitions) == ("dead", [b"bad"], [2])
    assert letters.timestamps_ms == [NOW_MS], "the event's own time may be past the topic's retention"
    assert read(DEAD_LETTER, letters.values[0])["timestamp"] is not None
    letter = read(DEAD_LETTER, letters.values[0])
    assert (letter["topic"], letter["partition"], letter["offset"], letter["reason"]) == ("in", 2, 5, "truncated")
    (letters,) = bench.publish_events(
        Event(2, 6, kind="rejection"), routing=replace(ROUTING, same_dead_letter_partitions=False)
    )
    assert letters.partitions is None


def test_a_forecast_that_may_not_leave_becomes_a_dead_letter_of_its_event(bench: Bench) -> None:
    batch = bench.batch(Event(0, 1, "a"), Event(0, 2, "bad"), Event(0, 3, "x", "tombstone"), Event(1, 4, "c"))
    forecasts = bench.forecasts(batch)
    assert forecasts is not None
    forecasts.values[1, 2, 0] = np.nan
    outgoing, letters = bench.publish(batch, forecasts)
    assert places(outgoing) == [(b"a", 1), (b"x", None), (b"c", 4)]
    assert outgoing.partitions == [0, 0, 1]
    letter = read(DEAD_LETTER, letters.values[0])
    assert (letter["partition"], letter["offset"], letter["reason"]) == (0, 2, "bad_forecast")
    assert "not_finite: forecast[day 2, quantile 0] = nan" in letter["detail"]
    assert letter["value"] == b"value"


def test_nothing_wrong_leaves_when_all_is_wrong(bench: Bench) -> None:
    batch = bench.batch(Event(0, 1, "a"), Event(0, 2, "b"))
    forecasts = bench.forecasts(batch)
    assert forecasts is not None
    forecasts.values[:] = -1.0
    outgoing, letters = bench.publish(batch, forecasts)
    assert len(outgoing.values) == 0
    assert len(letters.values) == 2


def test_headers_tell_the_origin_and_carry_the_trace_on(bench: Bench) -> None:
    batch = bench.batch(Event(0, 1, "a"), Event(0, 2, "x", "tombstone"), Event(0, 3, "b"))
    traces = [[("traceparent", b"00-1"), ("other", b"-")], [("traceparent", b"00-2")], []]
    traced = [(replace(records, headers=traces), index) for records, index in batch.origins]
    (outgoing,) = bench.publish(replace(batch, origins=traced), bench.forecasts(batch), replace(ROUTING, headers=True))
    assert outgoing.headers is not None
    constant = [
        ("model", b"fake"),
        ("model_version", b"1"),
        ("engine_digest", b"fa" * 32),
        ("precision", b"fp32"),
    ]
    assert outgoing.headers == [
        [*constant, ("source", b"in/0/1"), ("traceparent", b"00-1")],
        [],
        [*constant, ("source", b"in/0/3")],
    ]


def test_headers_need_no_headers_of_the_event(bench: Bench) -> None:
    (outgoing,) = bench.publish_events(Event(0, 1), routing=replace(ROUTING, headers=True))
    assert outgoing.headers is not None
    assert outgoing.headers[0][-1] == ("source", b"in/0/1")


def test_every_record_is_counted_once_and_every_stage_is_timed(bench: Bench) -> None:
    events = [Event(0, 1, "a"), Event(0, 2, "b"), Event(0, 3, kind="rejection"), Event(0, 4, kind="tombstone")]
    batch = bench.batch(*events)
    forecasts = bench.forecasts(batch)
    assert forecasts is not None
    forecasts.values[0, 0, 0] = np.inf
    bench.publish(batch, forecasts)
    counted = bench.counted()
    assert (counted.forecasts, counted.withdrawn) == (1, 1)
    assert {reason: count for reason, count in counted.rejections.items() if count} == {
        Reason.TRUNCATED: 1,
        Reason.BAD_FORECAST: 1,
    }
    assert [counted.stages[stage].count for stage in (Stage.ENCODE, Stage.PRODUCE)] == [1, 1]


def test_latency_is_from_the_event_to_now_for_events_with_a_time() -> None:
    given = [np.array([1000, -1, 4000], np.int64), np.array([], np.int64), np.array([9000], np.int64)]
    assert latencies_s(given, 5000).tolist() == [4.0, 1.0, 0.0]
    assert latencies_s([], 5000).tolist() == []
