from __future__ import annotations

import sys
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.engines import FakeEngine
from tests.helpers.gathering import INPUTS, Event, gather
from worker.batching import Batch, Batcher, CutReason, oldest_of
from worker.freshness import COUNT_EVERY_S, FreshKeys, Freshness


def batch_of(*events: Event) -> Batch:
    slot = FakeEngine(INPUTS, max_rows=64).acquire()
    assert slot is not None
    batcher = Batcher(max_rows=64, linger_s=0, max_wait_s=1, coalesce=False)
    batcher.open(slot)
    gather(batcher, events, 0.0)
    batch = batcher.seal(CutReason.STOP)
    assert batch is not None
    return batch


def committed(freshness: Freshness, now_s: float, *events: Event) -> None:
    freshness.published(batch_of(*events))
    freshness.committed(now_s)


def test_a_key_is_fresh_for_as_long_as_the_window() -> None:
    freshness = Freshness(window_s=100, max_keys=10)
    assert freshness.keys(0.0) == FreshKeys(0, 0, 0)
    assert freshness.keys(0.0).share is None
    committed(freshness, 10.0, Event(0, 1, "a"), Event(1, 1, "a"), Event(0, 2, "b"))
    committed(freshness, 60.0, Event(0, 3, "b"))
    assert [freshness.keys(now_s).fresh for now_s in (60.0, 111.0, 161.0)] == [3, 1, 0]
    assert freshness.keys(300.0) == FreshKeys(3, 0, 0)
    assert freshness.keys(300.0).share == 0.0


def test_only_what_is_committed_counts() -> None:
    freshness = Freshness(window_s=100, max_keys=10)
    freshness.published(batch_of(Event(0, 1, "a")))
    freshness.discarded()
    freshness.committed(1.0)
    assert freshness.keys(1.0).known == 0


def test_withdrawn_keys_are_forgotten_unless_they_come_again() -> None:
    freshness = Freshness(window_s=100, max_keys=10)
    committed(
        freshness,
        1.0,
        Event(0, 1, "a"),
        Event(0, 2, "b"),
        Event(0, 3, "a", "tombstone"),
        Event(0, 4, "b", "tombstone"),
        Event(0, 5, "b"),
    )
    assert freshness.keys(1.0).known == 1


def test_nothing_of_a_batch_is_kept_until_its_commit() -> None:
    freshness = Freshness(window_s=100, max_keys=10)
    batch = batch_of(Event(0, 1, "a"), Event(0, 2, "a", "tombstone"))
    held = [batch, batch.keys, batch.partitions, batch.withdrawals, batch.origins]
    before = [sys.getrefcount(each) for each in held]
    freshness.published(batch)
    assert [sys.getrefcount(each) for each in held] == before
    freshness.committed(1.0)
    assert freshness.keys(1.0).known == 0


class Counted(bytes):
    """Counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return bytes(self) == other

    __hash__ = bytes.__hash__


def test_many_withdrawals_among_many_rows_cost_no_more_than_their_sum() -> None:
    """The rows of one partition came behind the withdrawals of another: nothing of theirs matches."""
    rows = [Event(0, number, f"row{number}") for number in range(30)]
    gone = [Event(1, number, f"gone{number}", "tombstone") for number in range(30)]
    batch = batch_of(*gone, *rows)
    counting = replace(batch, keys=[Counted(key) for key in batch.keys])
    Counted.compared = 0
    freshness = Freshness(window_s=100, max_keys=100)
    freshness.published(counting)
    freshness.committed(1.0)
    assert Counted.compared < 100
    assert freshness.keys(1.0).known == 30


def test_keys_of_other_partitions_are_somebody_elses() -> None:
    freshness = Freshness(window_s=100, max_keys=10)
    committed(freshness, 1.0, Event(0, 1, "a"), Event(1, 1, "b"))
    freshness.keep([1, 2])
    assert freshness.keys(1.0).known == 1


def test_memory_is_bounded_and_what_is_beyond_it_is_counted() -> None:
    freshness = Freshness(window_s=100, max_keys=2)
    committed(freshness, 1.0, Event(0, 1, "a"), Event(0, 2, "b"), Event(0, 3, "c"), Event(0, 4, "c"), Event(1, 1, "d"))
    committed(freshness, 50.0, Event(0, 5, "a"), Event(0, 6, "c"))
    assert freshness.keys(120.0) == FreshKeys(2, 1, 4)


def test_switched_off_it_keeps_nothing() -> None:
    freshness = Freshness(window_s=100, max_keys=0)
    committed(freshness, 1.0, Event(0, 1, "a"))
    assert freshness.keys(1.0) == FreshKeys(0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdef"), st.integers(1, 40)), max_size=30))
def test_the_counts_are_those_of_a_plain_table(happened: list[tuple[int, str, int]]) -> None:
    freshness, table, now_s = Freshness(window_s=50, max_keys=100), dict[tuple[int, str], float](), 0.0
    for number, (partition, sku, passed_s) in enumerate(happened):
        now_s += passed_s
        committed(freshness, now_s, Event(partition, number, sku))
        table[partition, sku] = now_s
    now_s += COUNT_EVERY_S
    found = freshness.keys(now_s)
    assert (found.known, found.fresh) == (len(table), sum(time_s >= now_s - 50 for time_s in table.values()))


def test_the_oldest_event_of_all_that_have_a_time() -> None:
    batch = batch_of(Event(0, 7), Event(1, 3))
    assert oldest_of([batch.timestamps_ms]) == 30
    assert oldest_of([]) is None
    assert oldest_of([batch.timestamps_ms - 1000]) is None
