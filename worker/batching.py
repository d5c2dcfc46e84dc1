"""When a batch is cut, and what it holds.

The rule is work-conserving: an idle engine doesn't wait for a fuller batch longer than the linger, a busy one lets the
batch grow until it is full or its oldest record is due. A batch seals, together with its rows, the positions of every
record that went into it: forecasts, withdrawals, rejections and superseded events alike. Pure: the clock is given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.decode import Decoded
from worker.engine import Slot
from worker.errors import OutOfOrderError
from worker.records import Positions, Record, Records, Rejection, Span

MAX_HELD_BYTES = 64 << 20
"""A batch keeps the values of its records until it is published, so that any of them may become a dead letter. Few large
ones may be more than memory holds, so a batch is full at so many bytes, too."""

WORTHWHILE_SHARE = 1 / 8
"""A full batch goes on gathering if dropping superseded events frees at least this share of it; each time costs a pass
over its keys."""

Number = TypeVar("Number", np.int32, np.int64)


class CutReason(StrEnum):
    """Why a batch was cut; the label of its metric."""

    FULL = "full"
    DUE = "due"
    IDLE = "idle"
    COMMIT = "commit"
    REVOKE = "revoke"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A tombstone to pass on. It came after the first `after_row` rows of its batch."""

    record: Record
    after_row: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Rows [0, rows) of `slot`, where each came from, and the positions of everything that was gathered with them.

    `slot` is None when there is nothing to forecast. `keys`, `echoes` and the arrays have one element per row, in the
    order of arrival. `arrived_s` is the monotonic time at which the oldest record arrived.
    """

    slot: Slot | None
    rows: int
    keys: Sequence[bytes]
    echoes: Sequence[bytes]
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    withdrawals: Sequence[Withdrawal]
    rejections: Sequence[Rejection]
    superseded: int
    positions: Positions
    reason: CutReason
    arrived_s: float
    origins: Sequence[tuple[Records, int]]

    def record(self, row: int) -> Record:
        """The record that `row` was decoded from."""
        records, index = self.origins[row]
        return records[index]


class Batcher:
    """Gathers decoded rows in one slot until a batch is cut.

    Args:
        max_rows: rows per batch, at most the engine's.
        linger_s: how long an idle engine waits for company for the first record.
        max_wait_s: how long any record waits at most before its batch is cut.
        coalesce: True drops an event when a newer one with its key came from the same partition into the same batch.
            `make_room` does so early, so that a batch may reach over more events than it has rows.
        max_held_bytes: of values; the poll that passes it is the batch's last.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        linger_s: float,
        max_wait_s: float,
        coalesce: bool,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._max_rows = max_rows
        self._linger_s = linger_s
        self._max_wait_s = max_wait_s
        self._coalesce = coalesce
        self._max_held_bytes = max_held_bytes
        self._gathering = _Gathering(slot=None)

    @property
    def empty(self) -> bool:
        """True while nothing was gathered since the last cut."""
        return self._gathering.empty

    @property
    def slot(self) -> Slot | None:
        """The slot being filled, if there is one."""
        return self._gathering.slot

    @property
    def rows(self) -> int:
        """Rows filled so far, superseded ones among them. Decoding goes on at this row."""
        return self._gathering.rows

    @property
    def oldest_ms(self) -> int | None:
        """Event time of the oldest row gathered; None if none has one."""
        stamps_ms = [records.timestamps_ms[sources] for records, sources in self._gathering.chunks]
        return oldest_of(stamps_ms)

    @property
    def room(self) -> int:
        """How many more records may be added."""
        gathering = self._gathering
        if gathering.held_bytes >= self._max_held_bytes:
            return 0
        return self._max_rows - max(gathering.rows, len(gathering.withdrawals) + len(gathering.rejections))

    def open(self, slot: Slot) -> None:
        """Start filling `slot`, which is the batcher's until `seal` or `drop`. Only while no slot is open."""
        if self._gathering.slot is not None:
            raise ValueError("a slot is open already; seal or drop it first")
        self._gathering = _Gathering(slot=slot)

    def add(self, records: Records, decoded: Decoded, now_s: float) -> None:
        """Take one decoded poll whose rows were written to the open slot at row `self.rows`.

        Raises `OutOfOrderError` if offsets run backwards within a partition.
        """
        if len(records) == 0:
            return
        gathering = self._gathering
        gathering.span(records)
        gathering.arrived_s = min(gathering.arrived_s, now_s)
        first_row = gathering.rows
        gathering.rows += decoded.rows
        gathering.keys += decoded.keys
        gathering.echoes += decoded.echoes
        gathering.chunks.append((records, decoded.sources))
        gathering.withdrawals += [
            Withdrawal(record=records[index], after_row=first_row + int(np.searchsorted(decoded.sources, index)))
            for index in decoded.tombstones.tolist()
        ]
        gathering.rejections += [rejection for _, rejection in decoded.rejections]

    def make_room(self) -> bool:
        """Drop now what newer events of the same batch supersede. True if that made room worth going on for.

        For a full batch while more records are fetched already: after an outage, the latest event of each key is wanted
        across all of them, not across what happens to fit. The positions of what is dropped stay in the batch.
        """
        if not self._coalesce:
            return False
        self._gathering.squeeze()
        return self.room >= self._max_rows * WORTHWHILE_SHARE

    def due_in_s(self, now_s: float, *, engine_idle: bool) -> float | None:
        """Seconds until a cut is due if nothing more arrives; None if nothing was gathered."""
        if self._gathering.empty:
            return None
        wait_s = self._linger_s if engine_idle else self._max_wait_s
        return max(0.0, self._gathering.arrived_s + min(wait_s, self._max_wait_s) - now_s)

    def cut(self, now_s: float, *, engine_idle: bool) -> CutReason | None:
        """Why the batch should be cut now, or None."""
        gathering = self._gathering
        if gathering.empty:
            return None
        if self.room <= 0:
            return CutReason.FULL
        waited_s = now_s - gathering.arrived_s
        if waited_s >= self._max_wait_s:
            return CutReason.DUE
        if engine_idle and waited_s >= self._linger_s:
            return CutReason.IDLE
        return None

    def seal(self, reason: CutReason) -> Batch | None:
        """Everything gathered, as a batch; None if that is nothing, and then the slot stays open.

        The slot goes over to the batch. If no row is left to forecast, it stays with the batcher, open and empty.
        """
        gathering = self._gathering
        if gathering.empty:
            return None
        batch = gathering.batch(reason, coalesce=self._coalesce)
        self._gathering = _Gathering(slot=None if batch.rows else gathering.slot)
        return batch

    def drop(self) -> Slot | None:
        """Forget everything gathered and hand back the slot; its records must be read again."""
        slot = self._gathering.slot
        self._gathering = _Gathering(slot=None)
        return slot


class _Gathering:
    """What has been gathered since the last cut."""

    def __init__(self, slot: Slot | None) -> None:
        self.slot = slot
        self.rows = 0
        self.keys: list[bytes] = []
        self.echoes: list[bytes] = []
        self.chunks: list[tuple[Records, NDArray[np.intp]]] = []
        self.withdrawals: list[Withdrawal] = []
        self.rejections: list[Rejection] = []
        self.spans: dict[int, Span] = {}
        self.records = 0
        self.superseded = 0
        self.squeezed_records = 0  # nothing was added since the last squeeze, if it is the same as `records`
        self.held_bytes = 0
        self.topic = ""
        self.arrived_s = float("inf")

    @property
    def empty(self) -> bool:
        return self.records == 0

    def span(self, records: Records) -> None:
        """Extend the spans by one poll."""
        self.topic = records.topic
        self.records += len(records)
        self.held_bytes += sum(map(len, filter(None, records.values)))
        for partition in np.unique(records.partitions).tolist():
            indices = np.flatnonzero(records.partitions == partition)
            offsets = records.offsets[indices]
            before = self.spans.get(partition)
            backwards = bool((np.diff(offsets) <= 0).any())
            if backwards or (before is not None and offsets[0] < before.next_offset):
                raise OutOfOrderError(f"offsets of {records.topic}[{partition}] run backwards: {offsets.tolist()[:20]}")
            first_offset = before.first_offset if before else int(offsets[0])
            self.spans[partition] = Span(first_offset, records[int(indices[-1])].next_offset)

    def batch(self, reason: CutReason, *, coalesce: bool) -> Batch:
        if coalesce:
            self.squeeze()
        partitions = _joined([records.partitions[sources] for records, sources in self.chunks], np.int32)
        offsets = _joined([records.offsets[sources] for records, sources in self.chunks], np.int64)
        timestamps_ms = _joined([records.timestamps_ms[sources] for records, sources in self.chunks], np.int64)
        origins = [(records, index) for records, sources in self.chunks for index in sources.tolist()]
        return Batch(
            slot=self.slot if self.rows else None,
            rows=self.rows,
            keys=self.keys,
            echoes=self.echoes,
            partitions=partitions,
            offsets=offsets,
            timestamps_ms=timestamps_ms,
            withdrawals=self.withdrawals,
            rejections=self.rejections,
            superseded=self.superseded,
            positions=Positions(self.topic, self.spans, self.records),
            reason=reason,
            arrived_s=self.arrived_s,
            origins=origins,
        )

    def squeeze(self) -> None:
        """Keep only what nothing newer of the same partition and key came after, in the order of arrival."""
        if self.squeezed_records == self.records:
            return
        self.squeezed_records = self.records
        partitions = _joined([records.partitions[sources] for records, sources in self.chunks], np.int32)
        live, withdrawals = self._latest(partitions)
        self.superseded += self.rows + len(self.withdrawals) - len(live) - len(withdrawals)
        self.withdrawals = withdrawals
        if len(live) < self.rows:
            self._compact(live)
            self.keys, self.echoes = [self.keys[i] for i in live], [self.echoes[i] for i in live]
            self.chunks = list(_kept(self.chunks, np.array(live, dtype=np.intp)))
            self.rows = len(live)
            values = [value for records, _ in self.chunks for value in records.values]
            values += [rejection.record.value for rejection in self.rejections]
            self.held_bytes = sum(map(len, filter(None, values)))

    def _latest(self, partitions: NDArray[np.int32]) -> tuple[list[int], list[Withdrawal]]:
        """Rows and withdrawals that nothing newer of the same partition and key came after, in the order of arrival."""
        places = zip(partitions.tolist(), self.keys, strict=True)
        if not self.withdrawals:
            return sorted(dict(zip(places, range(self.rows), strict=True)).values()), []
        latest: dict[tuple[int, bytes | None], tuple[int, Withdrawal | None]] = {}
        waiting = iter([*self.withdrawals, None])
        withdrawal = next(waiting)
        for row, place in enumerate([*places, None]):
            while withdrawal is not None and withdrawal.after_row <= row:
                latest[withdrawal.record.partition, withdrawal.record.key] = (row, withdrawal)
                withdrawal = next(waiting)
            if place is not None:
                latest[place] = (row, None)
        rows = sorted(row for row, came in latest.values() if came is None)
        return rows, [
            replace(came, after_row=bisect_left(rows, came.after_row))
            for came in self.withdrawals
            if latest[came.record.partition, came.record.key][1] is came
        ]

    def _compact(self, live: list[int]) -> None:
        """Close the holes that superseded rows left in the slot."""
        if self.slot is not None:
            for column in self.slot.columns.values():
                column[: len(live)] = column[live]


def oldest_of(timestamps_ms: Sequence[NDArray[np.int64]]) -> int | None:
    """The least of all that are known, milliseconds; None if none is."""
    known = [int(column[column >= 0].min()) for column in timestamps_ms if (column >= 0).any()]
    return min(known, default=None)


def _kept(
    chunks: list[tuple[Records, NDArray[np.intp]]], live: NDArray[np.intp]
) -> Iterator[tuple[Records, NDArray[np.intp]]]:
    """The chunks with the rows `live` only, ascending, and without the records behind all others."""
    first = 0
    for records, sources in chunks:
        here = live[np.searchsorted(live, first) : np.searchsorted(live, first + len(sources))] - first
        first += len(sources)
        if len(here) == len(sources):
            yield records, sources
        elif len(here):
            yield records.select(sources[here]), np.arange(len(here), dtype=np.intp)


def _joined(parts: list[NDArray[Number]], dtype: type[Number]) -> NDArray[Number]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
