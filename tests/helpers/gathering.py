"""Polls as the batcher gets them, without a decoder: what each event becomes is written down, and its row is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.batching import Batcher
from worker.decode import Decoded
from worker.engine import Columns
from worker.records import Reason, Record, Records, Rejection

Kind = Literal["row", "tombstone", "rejection"]
INPUTS: Mapping[str, int | None] = {"sales": 2, "price": None}


@dataclass(frozen=True)
class Event:
    """A record and what decoding makes of it."""

    partition: int
    offset: int
    sku: str = "a"
    kind: Kind = "row"

    @property
    def forecast_key(self) -> bytes:
        return self.sku.encode()

    @property
    def echo(self) -> bytes:
        return f"{self.partition}/{self.offset}".encode()

    @property
    def features(self) -> tuple[float, float, float]:
        """No other event of the same test has these."""
        return (self.partition, self.offset, self.partition * 1000 + self.offset)

    @property
    def record(self) -> Record:
        return Record(
            topic="in",
            partition=self.partition,
            offset=self.offset,
            timestamp_ms=self.offset * 10,
            key=self.forecast_key,
            value=None if self.kind == "tombstone" else b"value",
        )


def gather(batcher: Batcher, events: Sequence[Event], now_s: float) -> None:
    """Decode into the open slot and add, as the loop does."""
    records = Records.of([event.record for event in events], topic="in")
    rows = [index for index, event in enumerate(events) if event.kind == "row"]
    if batcher.slot is not None:
        for row, index in enumerate(rows, batcher.rows):
            write_row(batcher.slot.columns, row, events[index].features)
    decoded = Decoded(
        rows=len(rows),
        sources=np.array(rows, np.intp),
        keys=[events[index].forecast_key for index in rows],
        echoes=[events[index].echo for index in rows],
        tombstones=np.array([i for i, event in enumerate(events) if event.kind == "tombstone"], np.intp),
        rejections=[
            (i, Rejection(record=event.record, reason=Reason.TRUNCATED, detail="broken"))
            for i, event in enumerate(events)
            if event.kind == "rejection"
        ],
    )
    batcher.add(records, decoded, now_s)


def write_row(columns: Columns, row: int, features: tuple[float, float, float]) -> None:
    columns["sales"][row] = features[:2]
    columns["price"][row] = features[2]


def read_row(columns: Columns, row: int) -> tuple[float, float, float]:
    first, second = columns["sales"][row].tolist()
    return (first, second, float(columns["price"][row]))
