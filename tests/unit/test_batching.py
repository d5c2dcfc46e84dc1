from __future__ import annotations

import pytest

from tests.helpers.engines import FakeEngine
from tests.helpers.gathering import INPUTS, Event, gather, read_row
from worker.batching import Batch, Batcher, CutReason
from worker.engine import Slot
from worker.errors import OutOfOrderError
from worker.records import Positions, Reason, Records, Span


def batcher(*, coalesce: bool = True, max_rows: int = 4, linger_s: float = 0.25, max_wait_s: float = 1.0) -> Batcher:
    made = Batcher(max_rows=max_rows, linger_s=linger_s, max_wait_s=max_wait_s, coalesce=coalesce)
    made.open(slot(max_rows))
    return made


def slot(max_rows: int = 4) -> Slot:
    taken = FakeEngine(INPUTS, max_rows=max_rows).acquire()
    assert taken is not None
    return taken


def sealed(made: Batcher, reason: CutReason = CutReason.COMMIT) -> Batch:
    batch = made.seal(reason)
    assert batch is not None
    return batch


def test_nothing_gathered_is_nothing() -> None:
    made = batcher()
    assert (made.empty, made.rows, made.room) == (True, 0, 4)
    assert made.cut(1e9, engine_idle=True) is None
    assert made.due_in_s(1e9, engine_idle=True) is None
    assert made.seal(CutReason.STOP) is None
    assert made.slot is not None
    gather(made, [], 0.0)
    assert made.empty


def test_a_batch_holds_rows_and_where_they_came_from() -> None:
    made = batcher()
    taken = made.slot
    gather(made, [Event(0, 5, "a"), Event(1, 7, "b")], 3.0)
    gather(made, [Event(0, 8, "c")], 4.0)
    assert (made.empty, made.rows, made.room) == (False, 3, 1)
    batch = sealed(made, CutReason.STOP)
    assert (batch.slot, batch.rows, batch.reason, batch.arrived_s) == (taken, 3, CutReason.STOP, 3.0)
    assert batch.keys == [b"a", b"b", b"c"]
    assert batch.echoes == [b"0/5", b"1/7", b"0/8"]
    assert (batch.partitions.tolist(), batch.offsets.tolist()) == ([0, 1, 0], [5, 7, 8])
    columns = (batch.partitions, batch.offsets, batch.timestamps_ms)
    assert [str(column.dtype) for column in columns] == ["int32", "int64", "int64"]
    assert batch.timestamps_ms.tolist() == [50, 70, 80]
    assert batch.positions == Positions("in", {0: Span(5, 9), 1: Span(7, 8)}, 3)
    assert [batch.record(row).offset for row in range(3)] == [5, 7, 8]
    assert (made.slot, made.empty) == (None, True)


def test_a_batch_without_rows_leaves_the_slot_open() -> None:
    made = batcher()
    taken = made.slot
    gather(made, [Event(0, 1, kind="rejection"), Event(0, 2, kind="tombstone")], 0.0)
    batch = sealed(made)
    assert (batch.slot, batch.rows, made.slot) == (None, 0, taken)
    assert batch.positions == Positions("in", {0: Span(1, 3)}, 2)
    assert [(each.record.offset, each.reason) for each in batch.rejections] == [(1, Reason.TRUNCATED)]
    assert [each.record.offset for each in batch.withdrawals] == [2]
    assert batch.partitions.size == batch.offsets.size == batch.timestamps_ms.size == 0
    assert made.empty


def test_an_open_slot_cannot_be_opened_over() -> None:
    made = batcher()
    with pytest.raises(ValueError, match="a slot is open already; seal or drop it first"):
        made.open(slot())


def test_drop_forgets_all_and_gives_the_slot_back() -> None:
    made = batcher()
    taken = made.slot
    gather(made, [Event(0, 5)], 0.0)
    assert made.drop() is taken
    assert (made.slot, made.empty) == (None, True)
    assert made.drop() is None
    made.open(slot())
    gather(made, [Event(0, 5)], 0.0)  # read again
    assert sealed(made).positions.spans[0] == Span(5, 6)


# -- when ---------------------------------------------------------------------------------------------------------------


def test_a_full_batch_is_cut_whatever_the_engine_does() -> None:
    made = batcher(max_rows=2)
    gather(made, [Event(0, 0), Event(0, 1, "b")], 0.0)
    assert made.cut(0.0, engine_idle=False) is made.cut(0.0, engine_idle=True) is CutReason.FULL


def test_dead_letters_and_tombstones_fill_a_batch_too() -> None:
    made = batcher(max_rows=3)
    gather(made, [Event(0, 0, kind="rejection"), Event(0, 1), Event(0, 2, kind="tombstone")], 0.0)
    assert made.room == 1
    gather(made, [Event(0, 3, kind="rejection")], 0.0)
    assert made.cut(0.0, engine_idle=False) is CutReason.FULL


def test_an_idle_engine_waits_for_the_linger_a_busy_one_for_the_oldest_record() -> None:
    made = batcher(linger_s=0.25, max_wait_s=1.0)
    gather(made, [Event(0, 0)], 10.0)
    gather(made, [Event(0, 1, "b")], 10.125)
    assert made.cut(10.125, engine_idle=True) is None
    assert made.due_in_s(10.125, engine_idle=True) == 0.125
    assert made.cut(10.25, engine_idle=True) is CutReason.IDLE
    assert made.cut(10.25, engine_idle=False) is None
    assert made.due_in_s(10.25, engine_idle=False) == 0.75
    assert made.cut(11.0, engine_idle=False) is made.cut(11.0, engine_idle=True) is CutReason.DUE
    assert made.due_in_s(99.0, engine_idle=False) == 0.0


def test_a_linger_beyond_the_longest_wait_is_cut_short() -> None:
    made = batcher(linger_s=5.0, max_wait_s=1.0)
    gather(made, [Event(0, 0)], 0.0)
    assert made.due_in_s(0.0, engine_idle=True) == 1.0
    assert made.cut(1.0, engine_idle=True) is CutReason.DUE


def test_without_a_linger_an_idle_engine_waits_for_nothing() -> None:
    made = batcher(linger_s=0.0)
    gather(made, [Event(0, 0)], 7.0)
    assert made.cut(7.0, engine_idle=True) is CutReason.IDLE


# -- order ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [[5, 5], [6, 5]])
def test_offsets_that_run_backwards_within_a_poll_are_refused(offsets: list[int]) -> None:
    with pytest.raises(OutOfOrderError, match=r"offsets of in\[1\] run backwards"):
        gather(batcher(), [Event(0, 9), *(Event(1, offset) for offset in offsets)], 0.0)


@pytest.mark.parametrize("offset", [0, 4, 5])
def test_and_so_are_those_that_run_behind_the_last_poll(offset: int) -> None:
    made = batcher()
    gather(made, [Event(1, 4), Event(1, 5, "b")], 0.0)
    with pytest.raises(OutOfOrderError, match=r"offsets of in\[1\] run backwards"):
        gather(made, [Event(1, offset)], 0.0)


def test_gaps_are_no_disorder() -> None:
    made = batcher()
    gather(made, [Event(1, 4), Event(1, 90, "b")], 0.0)
    assert sealed(made).positions.spans[1] == Span(4, 91)


# -- superseded -------------------------------------------------------------------------------------------------------------


def test_the_last_event_of_a_key_stays_and_the_slot_closes_up() -> None:
    made = batcher(max_rows=8)
    gather(made, [Event(0, 0, "a"), Event(0, 1, "b"), Event(0, 2, "a"), Event(0, 3, "c")], 0.0)
    batch = sealed(made)
    assert (batch.rows, batch.superseded, batch.keys) == (3, 1, [b"b", b"a", b"c"])
    assert batch.offsets.tolist() == [1, 2, 3]
    assert batch.slot is not None
    assert [read_row(batch.slot.columns, row)[1] for row in range(3)] == [1.0, 2.0, 3.0]
    assert [batch.record(row).offset for row in range(3)] == [1, 2, 3]
    assert batch.positions == Positions("in", {0: Span(0, 4)}, 4)


def test_the_same_key_of_another_partition_is_another_event() -> None:
    made = batcher()
    gather(made, [Event(0, 0, "a"), Event(1, 0, "a")], 0.0)
    assert (sealed(made).rows, made.room) == (2, 4)


def test_a_tombstone_supersedes_and_is_superseded() -> None:
    made = batcher(max_rows=8)
    events = [
        Event(0, 0, "a"),
        Event(0, 1, "a", "tombstone"),
        Event(0, 2, "b", "tombstone"),
        Event(0, 3, "b"),
        Event(0, 4, "c", "tombstone"),
        Event(0, 5, "c", "tombstone"),
    ]
    gather(made, events, 0.0)
    batch = sealed(made)
    assert (batch.keys, batch.superseded) == ([b"b"], 3)
    assert [(each.record.offset, each.after_row) for each in batch.withdrawals] == [(1, 0), (5, 1)]


def test_all_rows_superseded_by_tombstones_leave_no_row() -> None:
    made = batcher()
    taken = made.slot
    gather(made, [Event(0, 0), Event(0, 1, kind="tombstone")], 0.0)
    batch = sealed(made)
    assert (batch.rows, batch.slot, batch.superseded, made.slot) == (0, None, 1, taken)


def test_withdrawals_keep_their_place_among_the_rows_that_stay() -> None:
    made = batcher(max_rows=8)
    gather(made, [Event(0, 0, "a"), Event(0, 1, "b"), Event(0, 2, "x", "tombstone"), Event(0, 3, "a")], 0.0)
    batch = sealed(made)
    assert batch.keys == [b"b", b"a"]
    assert [each.after_row for each in batch.withdrawals] == [1]


def test_rejections_supersede_nothing() -> None:
    made = batcher()
    gather(made, [Event(0, 0), Event(0, 1, kind="rejection")], 0.0)
    batch = sealed(made)
    assert (batch.rows, batch.superseded, len(batch.rejections)) == (1, 0, 1)


def test_without_coalescing_everything_stays() -> None:
    made = batcher(coalesce=False, max_rows=8)
    gather(made, [Event(0, 0), Event(0, 1, kind="tombstone"), Event(0, 2)], 0.0)
    gather(made, [Event(0, 3, kind="tombstone"), Event(0, 4)], 0.0)
    batch = sealed(made)
    assert (batch.rows, batch.superseded, batch.offsets.tolist()) == (3, 0, [0, 2, 4])
    assert [(each.record.offset, each.after_row) for each in batch.withdrawals] == [(1, 1), (3, 2)]


def test_a_record_can_be_had_without_copying_the_poll() -> None:
    made = batcher()
    gather(made, [Event(0, 3)], 0.0)
    records, index = sealed(made).origins[0]
    assert isinstance(records, Records)
    assert records[index] == Event(0, 3).record


def test_few_large_values_fill_a_batch_too() -> None:
    made = Batcher(max_rows=100, linger_s=1.0, max_wait_s=1.0, coalesce=False, max_held_bytes=3 * len(b"value"))
    made.open(slot(100))
    gather(made, [Event(0, 0), Event(0, 1, kind="rejection"), Event(0, 2, kind="tombstone")], 0.0)
    assert made.cut(0.0, engine_idle=False) is None
    gather(made, [Event(0, 3), Event(0, 4)], 0.0)
    assert (made.room, made.cut(0.0, engine_idle=False)) == (0, CutReason.FULL)
    assert sealed(made, CutReason.FULL).positions.records == 5
    made.open(slot(100))
    assert made.room == 100
