"""Records as they came from the topic, what became of them, and how far they are done.

Rules of this file:

- `Record.next_offset` is the only place in the code base that adds one to an offset.
- `Positions` are made by sealing a batch (`Batcher.seal`) and spent by committing a transaction. Nothing else makes or
  spends one, so an offset can neither be committed before its outputs exist nor be forgotten.
- Pure: no Kafka, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from worker.errors import OutOfOrderError

Header = tuple[str, str | bytes | None]
"""A message header, as confluent_kafka takes and gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One message of a topic. `timestamp_ms` is the message's own timestamp (the event time), -1 if it has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()

    @property
    def next_offset(self) -> int:
        """The offset to commit when this record and all before it in its partition are done."""
        return self.offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The records of one poll as columns, in the order of arrival (and so in offset order within each partition).

    A poll brings thousands of records; an object for each would cost more than decoding it. `records[i]` makes one on
    demand, for the rare paths that need it. `headers` is None if nobody kept them; they may be made on demand, too.
    """

    topic: str
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[Header]] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Record:
        return Record(
            topic=self.topic,
            partition=int(self.partitions[index]),
            offset=int(self.offsets[index]),
            timestamp_ms=int(self.timestamps_ms[index]),
            key=self.keys[index],
            value=self.values[index],
            headers=() if self.headers is None else tuple(self.headers[index]),
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int] | NDArray[np.intp]) -> Records:
        """The records at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.intp)
        return Records(
            topic=self.topic,
            partitions=self.partitions[chosen],
            offsets=self.offsets[chosen],
            timestamps_ms=self.timestamps_ms[chosen],
            keys=[self.keys[i] for i in chosen],
            values=[self.values[i] for i in chosen],
            headers=None if self.headers is None else [self.headers[i] for i in chosen],
        )

    @classmethod
    def of(cls, records: Sequence[Record], *, topic: str = "") -> Records:
        """Columns of the given records, which must be of one topic."""
        return cls(
            topic=records[0].topic if records else topic,
            partitions=np.array([r.partition for r in records], dtype=np.int32),
            offsets=np.array([r.offset for r in records], dtype=np.int64),
            timestamps_ms=np.array([r.timestamp_ms for r in records], dtype=np.int64),
            keys=[r.key for r in records],
            values=[r.value for r in records],
            headers=[r.headers for r in records] if any(r.headers for r in records) else None,
        )


class Reason(StrEnum):
    """Why a record was rejected: the dead letter's reason code, and the label of its metric."""

    BAD_MAGIC = "bad_magic"
    UNKNOWN_SCHEMA = "unknown_schema_id"
    TRUNCATED = "truncated"
    TRAILING_BYTES = "trailing_bytes"
    MALFORMED = "malformed"
    MISSING_FIELD = "missing_field"
    WRONG_LENGTH = "wrong_length"
    NOT_FINITE = "not_finite"
    BAD_KEY = "bad_key"
    NO_KEY_NO_VALUE = "no_key_no_value"
    OVERSIZE = "oversize"
    BAD_FORECAST = "bad_forecast"
    OUT_OF_CALENDAR = "out_of_calendar"
    ENGINE_FAILED = "engine_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A record that gets no forecast, and why. `detail` says what was found and what was expected, for a person."""

    record: Record
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Span:
    """The records of one partition from `first_offset` up to, and without, `next_offset`.

    Offsets inside may be missing (transaction markers, compaction); records may not.
    """

    first_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Positions:
    """How far each partition is done once the outputs of the same batch are. `records` counts what it covers."""

    topic: str
    spans: Mapping[int, Span]
    records: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "spans", MappingProxyType(dict(self.spans)))

    def followed_by(self, later: Positions) -> Positions:
        """Both together. Raises `OutOfOrderError` if `later` doesn't start at or after the end of this one."""
        spans = dict(self.spans)
        for partition, span in later.spans.items():
            before = spans.get(partition)
            if before is not None and span.first_offset < before.next_offset:
                raise OutOfOrderError(
                    f"positions of {self.topic}[{partition}] run backwards: {span.first_offset} after {before.next_offset}"
                )
            spans[partition] = Span(before.first_offset if before else span.first_offset, span.next_offset)
        return Positions(later.topic, spans, self.records + later.records)
