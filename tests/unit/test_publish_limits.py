"""A record that can't be sent as it is must never stop its partition: it leaves cut, at another time, or as a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from tests.helpers.engines import FakeEngine
from tests.helpers.memory import MemoryBroker, Published
from tests.helpers.rig import DEAD_LETTER, FRAMING, Rig, event, key, read
from worker.batching import Batch, CutReason
from worker.checked import Part
from worker.encode import MESSAGE_OVERHEAD_BYTES, DeadLetterEncoder
from worker.engine import Forecasts
from worker.publish import MAX_TRACEPARENT_BYTES, _headers
from worker.records import Positions, Reason, Record, Records, Rejection

LIMIT_BYTES = 20_000
FUTURE_MS = 4_000_000_000_000


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(1, max_message_bytes=LIMIT_BYTES)


def settled(broker: MemoryBroker) -> list[Published]:
    rig = Rig(broker, max_value_bytes=LIMIT_BYTES)
    rig.source.assign(0)
    rig.settle()
    return broker.published


def to(topic: str, messages: list[Published]) -> list[Published]:
    return [message for message in messages if message.topic == topic]


@pytest.mark.parametrize(
    ("record_key", "value", "reason"),
    [
        (b"k", event("x" * (LIMIT_BYTES // 2)), "oversize"),
        (b"k", b"g" * LIMIT_BYTES, "bad_magic"),
        (b"k" * LIMIT_BYTES, b"garbage", "truncated"),
        (b"k" * LIMIT_BYTES, b"g" * LIMIT_BYTES, "bad_magic"),
        (b"k" * LIMIT_BYTES, None, "oversize"),
        (b"k" * 100, b"g" * 10 * LIMIT_BYTES, "oversize"),
    ],
)
def test_what_is_too_large_to_send_becomes_a_dead_letter_that_is_not(
    broker: MemoryBroker, record_key: bytes, value: bytes | None, reason: str
) -> None:
    broker.append(0, key("a"), event("a"))
    odd = broker.append(0, record_key, value)
    broker.append(0, key("b"), event("b"))
    published = settled(broker)
    assert [message.key for message in to("out", published)] == [key("a"), key("b")]
    (letter,) = to("dead", published)
    content = read(letter)
    assert (content["offset"], content["reason"]) == (odd.offset, reason)
    assert content["value_bytes"] == (-1 if value is None else len(value))
    assert letter.key is not None
    assert record_key.startswith(letter.key)
    assert content["key"] == letter.key
    if len(record_key) > LIMIT_BYTES // 4:
        assert f"the key has {len(record_key)} bytes" in str(content["detail"])


@given(key_bytes=st.integers(0, 2 * LIMIT_BYTES), value_bytes=st.integers(0, 2 * LIMIT_BYTES), detail=st.text())
@example(key_bytes=2 * LIMIT_BYTES, value_bytes=2 * LIMIT_BYTES, detail="\U0001f600" * 3000)
@example(key_bytes=0, value_bytes=0, detail="half a character: \ud800")
def test_every_dead_letter_fits_into_a_message(key_bytes: int, value_bytes: int, detail: str) -> None:
    encoder = DeadLetterEncoder(DEAD_LETTER, FRAMING.prefix_for(DEAD_LETTER), 10**9, LIMIT_BYTES)
    record = Record(
        topic="t" * 249,
        partition=2**31 - 1,
        offset=2**63 - 2,
        timestamp_ms=2**63 - 1,
        key=b"k" * key_bytes,
        value=b"v" * value_bytes,
    )
    rejection = Rejection(record=record, reason=Reason.NO_KEY_NO_VALUE, detail=detail)
    letter = encoder.encode(rejection, rejected_at_ms=2**63 - 1)
    assert len(encoder.key(record) or b"") + len(letter) + MESSAGE_OVERHEAD_BYTES <= LIMIT_BYTES


@settings(max_examples=20)
@given(sku_bytes=st.integers(LIMIT_BYTES // 2 - 2000, LIMIT_BYTES // 2))
def test_every_event_up_to_the_limit_has_one_outcome(sku_bytes: int) -> None:
    broker = MemoryBroker(1, max_message_bytes=LIMIT_BYTES)
    broker.append(0, b"k", event("x" * sku_bytes))
    assert len(settled(broker)) == 1


def test_events_from_the_future_leave_now_as_brokers_refuse_other_times(broker: MemoryBroker) -> None:
    broker.append(0, key("a"), event("a"), timestamp_ms=FUTURE_MS)
    broker.append(0, key("b"), None, timestamp_ms=FUTURE_MS)
    broker.append(0, key("c"), b"garbage", timestamp_ms=FUTURE_MS)
    broker.append(0, key("d"), event("d"), timestamp_ms=-1)
    published = settled(broker)
    assert len(published) == 4
    assert all(message.timestamp_ms < FUTURE_MS for message in published)
    assert next(message for message in published if message.key == key("d")).timestamp_ms == -1
    assert read(*to("dead", published))["timestamp"] == datetime.fromtimestamp(FUTURE_MS / 1000, UTC)


@pytest.mark.parametrize(("size_bytes", "kept"), [(55, True), (MAX_TRACEPARENT_BYTES, True), (1 << 20, False)])
def test_a_traceparent_that_is_none_isnt_passed_on(size_bytes: int, *, kept: bool) -> None:
    record = Record(topic="in", partition=0, offset=0, timestamp_ms=0, key=None, value=b"")
    columns = Records.of([record])
    records = Records(
        topic="in",
        partitions=columns.partitions,
        offsets=columns.offsets,
        timestamps_ms=columns.timestamps_ms,
        keys=columns.keys,
        values=columns.values,
        headers=[[("traceparent", b"t" * size_bytes), ("other", b"x")]],
    )
    batch = Batch(
        slot=None,
        rows=1,
        keys=[b"k"],
        echoes=[b""],
        partitions=columns.partitions,
        offsets=columns.offsets,
        timestamps_ms=columns.timestamps_ms,
        withdrawals=[],
        rejections=[],
        superseded=0,
        positions=Positions("in", {}, 1),
        reason=CutReason.IDLE,
        arrived_s=0.0,
        origins=[(records, 0)],
    )
    part = Part(
        rows=None, forecasts=Forecasts(np.zeros((1, 3, 3), np.float32), FakeEngine({}).spec), fallback_reason=None
    )
    (headers,) = _headers(batch, part)
    assert ("traceparent" in dict(headers)) is kept
    assert "other" not in dict(headers)
