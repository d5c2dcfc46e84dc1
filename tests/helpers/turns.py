"""Turns of a worker in memory: events for it, steps of its loop, and what came of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from tests.helpers.memory import MemoryBroker, MemorySource
from tests.helpers.rig import FRAMING, Rig, event, key, read
from worker.avro import Schema
from worker.engine import Forecasts, Ticket
from worker.errors import DeliveryError, SchemaUnavailableError
from worker.framing import Refusal
from worker.records import Records
from worker.statistics import Statistics

LATE = b"late schema"[:10]


class WatchedSource(MemorySource):
    """Notes its calls, and how long each poll may wait."""

    def __init__(self, broker: MemoryBroker, clock: ManualClock) -> None:
        super().__init__(broker, clock)
        self.calls: list[str] = []
        self.waits_s: list[float] = []

    def poll(self, max_records: int, timeout_s: float, *, eager: bool = True) -> Records:
        self.calls.append("poll" if max_records else "serve")
        self.waits_s.append(timeout_s)
        return super().poll(max_records, timeout_s, eager=eager)

    def pause(self) -> None:
        self.calls.append("pause")
        super().pause()

    def resume(self) -> None:
        self.calls.append("resume")
        super().resume()


class PickyEngine(FakeEngine):
    """Gives NaN for rows whose first number is negative."""

    def collect(self, ticket: Ticket) -> Forecasts:
        forecasts = super().collect(ticket)
        forecasts.values[ticket.slot.columns["sales"][: ticket.rows, 0] < 0] = np.nan
        return forecasts


class Stubborn(dict[str, DeliveryError]):
    """Failures that don't pass."""

    def pop(self, call: str, _: object = None) -> DeliveryError | None:  # type: ignore[override]
        return self.get(call)


class LateFraming:
    """The rig's framing, but values that start with `LATE` wait until their schema is `there`."""

    prefix_bytes = FRAMING.prefix_bytes

    def __init__(self) -> None:
        self.there = False
        self.asked = 0

    def schema_of(self, prefix: bytes) -> Schema | Refusal:
        if prefix != LATE:
            return FRAMING.schema_of(prefix)
        self.asked += 1
        if not self.there:
            raise SchemaUnavailableError((), "the registry is down")
        return FRAMING.schema_of(event("x")[: self.prefix_bytes])

    def prefix_for(self, schema: Schema) -> bytes:
        return FRAMING.prefix_for(schema)


def late_event(sku: str) -> bytes:
    return LATE + event(sku)[len(LATE) :]


def made(partitions: int = 2, **options: Any) -> Rig:
    """A rig that has all partitions from its first step on."""
    rig = Rig(MemoryBroker(partitions), source_class=WatchedSource, engine_class=PickyEngine, **options)
    rig.source.assign(*range(partitions))
    return rig


def send(rig: Rig, count: int = 1, partition: int = 0, *, stem: str = "sku") -> None:
    """`count` events, each of a SKU of its own."""
    for _ in range(count):
        sku = f"{stem}{len(rig.broker.log[partition])}"
        rig.broker.append(partition, key(sku), event(sku), timestamp_ms=900_000)


def step(rig: Rig, seconds: float = 0.0, *, times: int = 1) -> None:
    for _ in range(times):
        rig.clock.advance(seconds)
        rig.worker.step()


def watched(rig: Rig) -> WatchedSource:
    assert isinstance(rig.source, WatchedSource)
    return rig.source


def places(rig: Rig) -> list[tuple[object, object]]:
    """Source partition and offset of every forecast published, in the order of publishing."""
    contents = [read(message) for message in rig.broker.published if message.topic == "out" and message.value]
    return [(content["source_partition"], content["source_offset"]) for content in contents]


def letters(rig: Rig) -> list[dict[str, object]]:
    return [read(message) for message in rig.broker.published if message.topic == "dead"]


def not_ready(rig: Rig) -> list[str]:
    """The reasons in the last snapshot."""
    return list(rig.worker.statistics.not_ready)


def latest(rig: Rig) -> Statistics:
    """Statistics after one more step that is sure to make a snapshot."""
    step(rig, 1.0)
    return rig.worker.statistics
