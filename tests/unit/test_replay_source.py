from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import TOPIC
from tests.helpers.logs_of_offsets import LogConsumer
from worker.errors import ReplayStoppedError
from worker.records import Records, Span
from worker.replay_source import SpanSource


class Free:
    """Grants everything, and counts."""

    def __init__(self, limit: int = 10**9) -> None:
        self.limit = limit
        self.read = 0

    def granted(self, wanted_records: int) -> int:
        return min(wanted_records, self.limit)

    def spent(self, records: int) -> None:
        self.read += records


class Listener:
    def __init__(self) -> None:
        self.assigned: list[frozenset[int]] = []

    def on_assigned(self, partitions: frozenset[int]) -> None:
        self.assigned.append(partitions)

    def on_revoked(self, partitions: frozenset[int]) -> None:
        raise AssertionError(partitions)

    def on_lost(self, partitions: frozenset[int]) -> None:
        raise AssertionError(partitions)


def source(
    consumer: LogConsumer, spans: dict[int, Span], clock: ManualClock | None = None, allowance: Free | None = None
) -> SpanSource:
    consumer.stored = {partition: span.first_offset for partition, span in spans.items()}
    made = SpanSource(
        consumer.as_consumer,
        TOPIC,
        spans=spans,
        committed=dict(consumer.stored),
        allowance=allowance or Free(),
        clock=clock or ManualClock(),
        wait=lambda _: None,
    )
    made.subscribe(Listener())
    return made


def places(records: Records) -> list[tuple[int, int]]:
    return [(record.partition, record.offset) for record in records]


def drained(made: SpanSource, polls: int = 50) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for _ in range(polls):
        if made.done:
            return found
        found += places(made.poll(3, 0.1))
    raise AssertionError(f"not done: {made.left_offsets} left")


def test_it_ends_behind_markers_holes_and_in_empty_partitions() -> None:
    consumer = LogConsumer({0: [0, 1, 5], 1: [], 2: [3, 4], 3: [7]}, {0: 9, 1: 0, 2: 5, 3: 8})
    made = source(consumer, {0: Span(0, 9), 1: Span(0, 0), 2: Span(0, 5), 3: Span(8, 8)})
    assert drained(made) == [(0, 0), (0, 1), (0, 5), (2, 3), (2, 4)]
    assert made.left_offsets == 0
    assert len(made.poll(10, 0.1)) == 0


def test_a_partition_of_nothing_but_markers_ends_when_the_broker_says_so() -> None:
    made = source(LogConsumer({0: []}, {0: 4}), {0: Span(0, 4)})
    assert drained(made) == []


def test_records_behind_the_end_are_not_read_and_prove_that_it_was_passed() -> None:
    made = source(LogConsumer({0: [0, 1, 50, 51]}, {0: 60}), {0: Span(1, 40)})
    assert places(made.poll(2, 0.1)) == [(0, 1)]
    assert made.done


def test_a_rewind_reads_again_what_is_not_committed_also_of_partitions_that_were_done() -> None:
    consumer = LogConsumer({0: [0, 1, 2], 1: [0]}, {0: 4, 1: 2})
    made = source(consumer, {0: Span(0, 4), 1: Span(0, 2)})
    assert len(drained(made)) == 4
    consumer.stored = {0: 1, 1: 1}
    made.rewind()
    assert not made.done
    assert drained(made) == [(0, 1), (0, 2)]


def test_a_rewind_does_not_go_back_into_a_gap_that_is_allowed() -> None:
    consumer = LogConsumer({0: [5, 6, 7]}, {0: 8})
    consumer.low = {0: 5}
    made = SpanSource(
        consumer.as_consumer,
        TOPIC,
        spans={0: Span(2, 8)},
        committed={0: 5},  # the book says 3, what is left begins at 5
        allowance=Free(),
        clock=ManualClock(),
        wait=lambda _: None,
    )
    made.subscribe(Listener())
    assert places(made.poll(2, 0.1)) == [(0, 5), (0, 6)]
    consumer.stored = {0: 3}
    made.rewind()
    assert drained(made) == [(0, 5), (0, 6), (0, 7)]


def test_a_held_partition_waits_and_comes_again_from_there() -> None:
    clock = ManualClock()
    made = source(LogConsumer({0: [0, 1, 2], 1: [0]}, {0: 3, 1: 1}), {0: Span(0, 3), 1: Span(0, 1)}, clock)
    assert places(made.poll(10, 0.1)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    made.hold(0, 1, clock() + 5)
    assert (made.held, made.done) == (frozenset([0]), False)
    made.poll(10, 0.1)
    assert not made.done
    clock.advance(5)
    assert places(made.poll(10, 0.1)) == [(0, 1), (0, 2)]
    assert drained(made) == []


def test_paused_or_without_allowance_nothing_is_read() -> None:
    allowance = Free(limit=0)
    made = source(LogConsumer({0: [0, 1]}, {0: 2}), {0: Span(0, 2)}, allowance=allowance)
    assert len(made.poll(10, 0.1)) == 0
    allowance.limit = 1
    made.pause()
    assert len(made.poll(10, 0.1)) == 0
    made.resume()
    assert places(made.poll(10, 0.1)) == [(0, 0)]
    assert allowance.read == 1


def test_records_that_were_deleted_meanwhile_end_it() -> None:
    consumer = LogConsumer({0: [5]}, {0: 6})
    consumer.low = {0: 4}
    with pytest.raises(ReplayStoppedError, match="were deleted before they were replayed"):
        source(consumer, {0: Span(0, 6)}).poll(10, 0.1)


def test_lag_is_what_is_left_of_the_span() -> None:
    made = source(LogConsumer({0: [0, 3], 1: [0]}, {0: 100, 1: 1}), {0: Span(0, 10), 1: Span(0, 1)})
    made.poll(1, 0.1)
    assert [(lag.partition, lag.records) for lag in made.lags(0)] == [(0, 9), (1, 1)]
    assert made.joined
    assert made.assigned == {0, 1}
    assert made.group_metadata() == "metadata"
    made.close()


logs = st.dictionaries(
    st.integers(0, 3), st.tuples(st.sets(st.integers(0, 30), max_size=12), st.integers(0, 4)), min_size=1, max_size=4
)


@given(logs=logs, first=st.integers(0, 25), length=st.integers(0, 30), rewinds=st.sets(st.integers(0, 15)))
def test_whatever_the_log_looks_like_every_record_of_the_span_comes_and_no_other(
    logs: dict[int, tuple[set[int], int]], first: int, length: int, rewinds: set[int]
) -> None:
    """A rewind brings back what wasn't committed: here everything, so that at last everything has come since."""
    records = {partition: sorted(offsets) for partition, (offsets, _) in logs.items()}
    ends = {p: max(records[p], default=-1) + 1 + markers for p, (_, markers) in logs.items()}
    spans = {p: Span(min(first, end), min(first + length, end)) for p, end in ends.items()}
    made = source(LogConsumer(records, ends), spans)
    found: list[tuple[int, int]] = []
    for turn in range(200):
        if turn in rewinds:
            made.rewind()
            found.clear()
        if made.done:
            break
        found += places(made.poll(4, 0.1))
    assert made.done
    wanted = [(p, o) for p, span in spans.items() for o in records[p] if span.first_offset <= o < span.next_offset]
    assert sorted(found) == sorted(wanted)
