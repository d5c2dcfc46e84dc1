"""Whatever comes in whatever order: nothing is lost, nothing twice, nothing out of place, nothing too late."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.helpers.engines import FakeEngine
from tests.helpers.gathering import INPUTS, Event, Kind, gather, read_row
from worker.batching import Batch, Batcher, CutReason
from worker.records import Positions, Span

TICK_S = 1 / 64
"""A power of two, so that sums of times are exact and "due now" is due now."""

kinds: st.SearchStrategy[Kind] = st.sampled_from(["row", "row", "row", "tombstone", "rejection"])
happenings = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from("abc"), kinds), min_size=1, max_size=12
)
"""Partition, offsets left out before the record, key, and what becomes of it."""


class BatcherMachine(RuleBasedStateMachine):
    """A batcher against a list of what was gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.ends: dict[int, int] = {}  # partition -> end of the log
        self.unread: deque[Event] = deque()  # on the log, to be read (again)
        self.gathered: list[Event] = []
        self.arrived_s: list[float] = []
        self.dropped: set[tuple[int, int]] = set()  # by making room
        self.sealed: list[Event] = []
        self.positions: Positions | None = None

    @initialize(
        max_rows=st.integers(1, 10), linger=st.integers(0, 8), max_wait=st.integers(1, 16), coalesce=st.booleans()
    )
    def start(self, max_rows: int, linger: int, max_wait: int, *, coalesce: bool) -> None:
        self.max_rows, self.linger_s, self.max_wait_s = max_rows, linger * TICK_S, max_wait * TICK_S
        self.coalesce = coalesce
        self.engine = FakeEngine(INPUTS, max_rows=max_rows, slots=1)
        self.batcher = Batcher(max_rows=max_rows, linger_s=self.linger_s, max_wait_s=self.max_wait_s, coalesce=coalesce)
        self.open()

    def open(self) -> None:
        slot = self.engine.acquire()
        assert slot is not None
        self.batcher.open(slot)

    @rule(happenings=happenings)
    def arrive(self, happenings: list[tuple[int, int, str, Kind]]) -> None:
        for partition, skipped, sku, kind in happenings:
            offset = self.ends.get(partition, 0) + skipped
            self.ends[partition] = offset + 1
            self.unread.append(Event(partition, offset, sku, kind))

    @precondition(lambda self: self.unread and self.batcher.room > 0)
    @rule(share=st.floats(0.1, 1.0))
    def poll(self, share: float) -> None:
        count = max(1, int(min(self.batcher.room, len(self.unread)) * share))
        events = [self.unread.popleft() for _ in range(count)]
        gather(self.batcher, events, self.now_s)
        self.gathered += events
        self.arrived_s += [self.now_s] * count

    @rule()
    def make_room(self) -> None:
        went_on = self.batcher.make_room()
        if self.coalesce:
            last = {(e.partition, e.sku): e for e in self.gathered if e.kind != "rejection"}
            self.dropped |= {
                (e.partition, e.offset)
                for e in self.gathered
                if e.kind != "rejection" and last[e.partition, e.sku] is not e
            }
        assert went_on is (self.coalesce and self.batcher.room >= self.max_rows / 8)

    @property
    def kept(self) -> list[Event]:
        return [event for event in self.gathered if (event.partition, event.offset) not in self.dropped]

    @rule(ticks=st.integers(1, 4))
    def wait(self, ticks: int) -> None:
        self.now_s += ticks * TICK_S

    @rule(idle=st.booleans())
    def cut(self, *, idle: bool) -> None:
        reason = self.batcher.cut(self.now_s, engine_idle=idle)
        if reason is not None:
            self.seal(reason)

    @rule(reason=st.sampled_from([CutReason.COMMIT, CutReason.REVOKE, CutReason.STOP]))
    def seal(self, reason: CutReason) -> None:
        open_slot = self.batcher.slot
        batch = self.batcher.seal(reason)
        if not self.gathered:
            assert batch is None
            return
        assert batch is not None
        assert batch.reason is reason
        self.check_outcomes(batch)
        self.check_rows(batch)
        self.check_positions(batch)
        assert batch.arrived_s == self.arrived_s[0]
        assert batch.slot is (open_slot if batch.rows else None)
        assert self.batcher.slot is (None if batch.rows else open_slot)
        self.sealed += self.gathered
        self.gathered, self.arrived_s, self.dropped = [], [], set()
        if batch.slot is not None:
            self.engine.release(batch.slot)
            self.open()

    @rule()
    def abort(self) -> None:
        slot = self.batcher.drop()
        assert slot is not None
        self.engine.release(slot)
        self.unread.extendleft(reversed(self.gathered))
        self.gathered, self.arrived_s, self.dropped = [], [], set()
        self.open()

    def check_outcomes(self, batch: Batch) -> None:
        """Every record is exactly one of row, withdrawal, rejection, superseded, and the right one of these."""
        rows = list(zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True))
        withdrawals = [(w.record.partition, w.record.offset) for w in batch.withdrawals]
        rejections = [(r.record.partition, r.record.offset) for r in batch.rejections]
        assert len({*rows, *withdrawals, *rejections}) == len(rows) + len(withdrawals) + len(rejections)
        assert len(rows) + len(withdrawals) + len(rejections) + batch.superseded == len(self.gathered)

        heard = [event for event in self.gathered if event.kind != "rejection"]
        if self.coalesce:
            last = {(event.partition, event.sku): event for event in heard}
            heard = [event for event in heard if last[event.partition, event.sku] is event]
        assert rows == [(event.partition, event.offset) for event in heard if event.kind == "row"]
        assert [(w.record.partition, w.record.offset, w.after_row) for w in batch.withdrawals] == [
            (event.partition, event.offset, sum(before.kind == "row" for before in heard[:index]))
            for index, event in enumerate(heard)
            if event.kind == "tombstone"
        ]
        assert rejections == [(e.partition, e.offset) for e in self.gathered if e.kind == "rejection"]

    def check_rows(self, batch: Batch) -> None:
        """Rows are at most as many as the engine takes, and all that is said of a row is of the same event."""
        assert 0 <= batch.rows <= self.max_rows
        sizes = {len(batch.keys), len(batch.echoes), len(batch.origins)}
        sizes |= {len(column) for column in (batch.partitions, batch.offsets, batch.timestamps_ms)}
        assert sizes == {batch.rows}
        events = {(event.partition, event.offset): event for event in self.gathered}
        for row in range(batch.rows):
            event = events[int(batch.partitions[row]), int(batch.offsets[row])]
            assert (batch.keys[row], batch.echoes[row]) == (event.forecast_key, event.echo)
            assert batch.record(row) == event.record
            assert batch.timestamps_ms[row] == event.record.timestamp_ms
            assert batch.slot is not None
            assert read_row(batch.slot.columns, row) == event.features

    def check_positions(self, batch: Batch) -> None:
        """Positions are the exact union of what was gathered, and follow those before without a gap or a step back."""
        assert batch.positions.records == len(self.gathered)
        by_partition: dict[int, list[Event]] = {}
        for event in self.gathered:
            by_partition.setdefault(event.partition, []).append(event)
        assert dict(batch.positions.spans) == {
            partition: Span(events[0].offset, events[-1].record.next_offset)
            for partition, events in by_partition.items()
        }
        self.positions = self.positions.followed_by(batch.positions) if self.positions else batch.positions
        everything = [*self.sealed, *self.gathered]
        assert self.positions.records == len(everything)
        for partition, span in self.positions.spans.items():
            offsets = [event.offset for event in everything if event.partition == partition]
            assert offsets == sorted(set(offsets))
            assert span == Span(offsets[0], offsets[-1] + 1)
            left = [event.offset for event in self.unread if event.partition == partition]
            assert not left or left[0] >= span.next_offset

    @invariant()
    def knows_what_it_has(self) -> None:
        rows = sum(event.kind == "row" for event in self.kept)
        assert self.batcher.empty is (not self.gathered)
        assert self.batcher.rows == rows
        assert self.batcher.room == self.max_rows - max(rows, len(self.kept) - rows)
        assert self.batcher.slot is not None

    @invariant()
    def cuts_when_it_should(self) -> None:
        for idle in (True, False):
            assert self.batcher.cut(self.now_s, engine_idle=idle) is self.expected_cut(idle=idle)
            due_in_s = self.batcher.due_in_s(self.now_s, engine_idle=idle)
            assert (due_in_s is None) is (not self.gathered)
            if due_in_s is not None:
                assert due_in_s == max(0.0, self.arrived_s[0] + self.patience_s(idle=idle) - self.now_s)
                assert self.batcher.cut(self.now_s + due_in_s, engine_idle=idle) is not None

    def patience_s(self, *, idle: bool) -> float:
        return min(self.linger_s, self.max_wait_s) if idle else self.max_wait_s

    def expected_cut(self, *, idle: bool) -> CutReason | None:
        if not self.gathered:
            return None
        rows = sum(event.kind == "row" for event in self.kept)
        if self.max_rows in {rows, len(self.kept) - rows}:
            return CutReason.FULL
        waited_s = self.now_s - self.arrived_s[0]
        if waited_s >= self.max_wait_s:
            return CutReason.DUE
        return CutReason.IDLE if idle and waited_s >= self.linger_s else None


TestBatcherMachine = BatcherMachine.TestCase


@given(
    gaps=st.lists(st.integers(0, 20), min_size=1, max_size=30),
    busy=st.lists(st.integers(1, 25), min_size=1, max_size=30),
    max_rows=st.integers(1, 8),
    linger=st.integers(0, 10),
    max_wait=st.integers(1, 20),
)
def test_nothing_waits_longer_than_it_must(
    gaps: list[int], busy: list[int], max_rows: int, linger: int, max_wait: int
) -> None:
    """A loop that looks at the batcher when something arrives, when it said so, and when the engine gets idle.

    Each batch keeps the engine busy for one of `busy`. No record waits beyond max_wait, and none beyond the linger while
    the engine was idle all the time.
    """
    batcher = Batcher(max_rows=max_rows, linger_s=linger * TICK_S, max_wait_s=max_wait * TICK_S, coalesce=False)
    engine = FakeEngine(INPUTS, max_rows=max_rows, slots=1)
    arrivals = [sum(gaps[: index + 1]) * TICK_S for index in range(len(gaps))]
    durations_s = [ticks * TICK_S for ticks in busy]
    waiting: list[float] = []
    now_s = idle_from_s = 0.0
    offset = batches = 0
    while offset < len(arrivals) or waiting:
        moments = arrivals[offset : offset + 1]
        due_in_s = batcher.due_in_s(now_s, engine_idle=now_s >= idle_from_s)
        moments += [] if due_in_s is None else [now_s + due_in_s]
        moments += [idle_from_s] if waiting and idle_from_s > now_s else []
        now_s = max(now_s, min(moments))
        if batcher.slot is None:
            slot = engine.acquire()
            assert slot is not None
            batcher.open(slot)
        if offset < len(arrivals) and arrivals[offset] <= now_s:
            gather(batcher, [Event(0, offset)], now_s)
            waiting.append(now_s)
            offset += 1
        reason = batcher.cut(now_s, engine_idle=now_s >= idle_from_s)
        if reason is not None:
            oldest_s = waiting[0]
            assert now_s - oldest_s <= max_wait * TICK_S
            assert idle_from_s > oldest_s or now_s - oldest_s <= linger * TICK_S
            batch = batcher.seal(reason)
            assert batch is not None
            assert batch.rows == len(waiting)
            assert batch.slot is not None
            engine.release(batch.slot)
            waiting = []
            idle_from_s = max(now_s, idle_from_s) + durations_s[batches % len(durations_s)]
            batches += 1
        elif waiting:
            assert now_s < idle_from_s or now_s - waiting[0] < linger * TICK_S
