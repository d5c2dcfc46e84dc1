"""What every source does: the one in memory that the loop's tests use, and the real one under both group protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import TopicFactory
from tests.helpers.members import PARTITIONS, KafkaMember, Member, MemoryMember, gather, joined, offsets
from tests.helpers.waiting import wait_until
from worker.records import Record

KINDS = ["memory", pytest.param("classic", marks=pytest.mark.kafka), pytest.param("consumer", marks=pytest.mark.kafka)]
Make = Callable[[float], Member]
ALL = frozenset(range(PARTITIONS))


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes members, each on a topic and in a group of its own; the argument: how long it may go without a poll."""
    made: list[Member] = []

    def member(max_poll_s: float = 60.0) -> Member:
        if request.param == "memory":
            made.append(MemoryMember())
        else:
            topics: TopicFactory = request.getfixturevalue("topics")
            kafka = request.getfixturevalue("kafka")
            topic = topics("source", partitions=PARTITIONS)
            made.append(KafkaMember(kafka.bootstrap_servers, topic, request.param, max_poll_s))
        return made[-1]

    yield member
    for each in made:
        each.close()


@pytest.fixture
def member(make: Make) -> Member:
    return make(60.0)


@pytest.fixture
def alone(member: Member) -> Member:
    """A member that has all partitions, with 6 records in each."""
    for partition in ALL:
        member.append(partition, 6)
    joined(member)
    return member


def poll_until(member: Member, condition: Callable[[], bool], what: str, *, at_a_time: int = 10) -> list[Record]:
    """Polls until `condition`; what came meanwhile."""
    found: list[Record] = []

    def met() -> bool:
        found.extend(member.source.poll(at_a_time, 0.05))
        return condition()

    wait_until(met, what)
    return found


def test_partitions_come_in_offset_order_and_all_of_them_once(alone: Member) -> None:
    records = gather(alone, 6 * PARTITIONS, at_a_time=4)
    for partition in ALL:
        assert offsets(records, partition) == list(range(6))
    assert {(record.key, record.value, record.timestamp_ms) for record in records} == {(b"key", b"value", 1000)}
    alone.append(1, 2)
    assert offsets(gather(alone, 2), 1) == [6, 7]


def test_a_poll_gives_at_most_what_was_asked_for(alone: Member) -> None:
    for eager in (True, False):
        counts: list[int] = []

        def some(counts: list[int] = counts, *, eager: bool = eager) -> bool:
            counts.append(len(alone.source.poll(4, 0.1, eager=eager)))
            return sum(counts) >= 8

        wait_until(some, "two polls' worth")
        assert max(counts) <= 4


def test_a_gathering_poll_waits_for_all_that_was_asked_for_and_an_eager_one_does_not(alone: Member) -> None:
    first = len(alone.source.poll(10, 30.0, eager=False))
    assert first == 10
    rest = gather(alone, 6 * PARTITIONS - first)
    assert len(rest) == 8
    alone.append(0, 1)
    found: list[Record] = []

    def come() -> bool:
        found.extend(alone.source.poll(100, 60.0))
        return bool(found)

    wait_until(come, "an eager poll gives what there is")
    assert offsets(found, 0) == [6]


def test_without_room_it_gives_nothing_and_loses_nothing(alone: Member) -> None:
    for _ in range(3):
        assert len(alone.source.poll(0, 0.05)) == 0
    records = gather(alone, 6 * PARTITIONS)
    assert [offsets(records, partition) for partition in sorted(ALL)] == [list(range(6))] * PARTITIONS


def test_partitions_are_assigned_when_the_listener_is_told(alone: Member) -> None:
    assert alone.source.assigned == ALL
    assert alone.source.held == frozenset()
    told = alone.notes.of("assigned")
    assert frozenset().union(*(partitions for _, partitions, _ in told)) == ALL
    assert all(partitions <= held for _, partitions, held in told)
    assert {kind for kind, partitions, _ in alone.notes.told if partitions} == {"assigned"}


def test_what_the_group_has_committed_is_not_read_again(alone: Member) -> None:
    alone.commit(0, 4)
    alone.source.rewind()
    records = gather(alone, 6 * PARTITIONS)
    assert offsets(records, 1) == list(range(6))
    alone.source.rewind()
    records = gather(alone, 2 + 6 + 6)
    assert [offsets(records, partition) for partition in (0, 1, 2)] == [[4, 5], list(range(6)), list(range(6))]


# -- rewinding --------------------------------------------------------------------------------------------------------


def test_rewind_goes_to_the_committed_offset_or_to_where_reading_began(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.commit(0, 3)
    alone.commit(1, 6)
    alone.source.rewind()
    again = gather(alone, 3 + 6)
    assert offsets(again, 0) == [3, 4, 5]
    assert offsets(again, 1) == []
    assert offsets(again, 2) == list(range(6))
    alone.append(1, 1)
    assert offsets(gather(alone, 1), 1) == [6]


def test_rewind_in_the_midst_of_a_partition(alone: Member) -> None:
    first = gather(alone, 5, at_a_time=5)
    alone.source.rewind()
    again = gather(alone, 6 * PARTITIONS)
    assert len(first) == 5
    assert [offsets(again, partition) for partition in sorted(ALL)] == [list(range(6))] * PARTITIONS


def test_rewind_as_partitions_are_revoked_reads_what_stays_again(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    for partition in ALL:
        alone.commit(partition, 2)
    alone.notes.then["revoked"] = lambda _: alone.source.rewind()
    for partition in ALL:
        alone.append(partition, 1)
    with alone.share():
        poll_until(alone, lambda: bool(alone.notes.of("revoked")), "some partitions are revoked", at_a_time=1)
        stayed = alone.source.assigned
        assert stayed < ALL
        again = gather(alone, 5 * len(stayed))
        for partition in stayed:
            assert offsets(again, partition) == [2, 3, 4, 5, 6]


# -- holding ----------------------------------------------------------------------------------------------------------


def test_a_held_partition_alone_stops_and_goes_on_at_its_offset_when_its_time_has_come(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.source.hold(1, 4, alone.clock() + 5.0)
    assert alone.source.held == {1}
    assert alone.source.assigned == ALL
    for partition in ALL:
        alone.append(partition, 2)
    others = gather(alone, 4)
    assert [offsets(others, partition) for partition in (0, 1, 2)] == [[6, 7], [], [6, 7]]
    alone.clock.advance(4.9)
    alone.append(0, 1)
    assert offsets(gather(alone, 1), 0) == [8]
    assert alone.source.held == {1}
    alone.clock.advance(0.1)
    assert offsets(gather(alone, 4), 1) == [4, 5, 6, 7]
    assert alone.source.held == frozenset()


def test_a_hold_outlives_a_pause_and_keeps_its_offset(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.source.hold(1, 4, alone.clock() + 5.0)
    alone.source.pause()
    alone.source.poll(0, 0.05)
    alone.source.resume()
    alone.append(0, 1)
    assert offsets(gather(alone, 1), 0) == [6]
    assert alone.source.held == {1}
    alone.clock.advance(5.0)
    assert offsets(gather(alone, 2), 1) == [4, 5]


def test_a_hold_that_ends_within_a_pause_goes_on_with_it(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.source.pause()
    alone.source.hold(1, 4, alone.clock() + 5.0)
    alone.clock.advance(5.0)
    assert len(alone.source.poll(0, 0.05)) == 0
    assert alone.source.held == frozenset()
    alone.source.resume()
    assert offsets(gather(alone, 2), 1) == [4, 5]


def test_a_held_partition_is_rewound_with_the_others(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.commit(1, 2)
    alone.source.hold(1, 4, alone.clock() + 5.0)
    alone.source.rewind()
    records = gather(alone, 12)
    assert [offsets(records, partition) for partition in (0, 1, 2)] == [list(range(6)), [], list(range(6))]
    alone.clock.advance(5.0)
    assert offsets(gather(alone, 4), 1) == [2, 3, 4, 5]


# -- pausing ----------------------------------------------------------------------------------------------------------


def test_a_pause_stops_all_and_nothing_is_left_out_afterwards(alone: Member) -> None:
    gather(alone, 5, at_a_time=5)
    seen = dict.fromkeys(ALL, 0)
    alone.source.rewind()
    for record in gather(alone, 7):
        seen[record.partition] += 1
    alone.source.pause()
    for _ in range(5):
        assert len(alone.source.poll(10, 0.05)) == 0
    alone.source.resume()
    rest = gather(alone, 6 * PARTITIONS - 7)
    for partition in ALL:
        assert offsets(rest, partition) == list(range(seen[partition], 6))


def test_a_rewind_within_a_pause_takes_effect_after_it(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.commit(0, 3)
    alone.source.pause()
    alone.source.rewind()
    assert len(alone.source.poll(10, 0.05)) == 0
    alone.source.pause()
    alone.source.resume()
    again = gather(alone, 3 + 6 + 6)
    assert [offsets(again, partition) for partition in (0, 1, 2)] == [[3, 4, 5], list(range(6)), list(range(6))]


def test_a_pause_right_after_a_rewind_keeps_the_rewind(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.commit(0, 3)
    alone.source.rewind()
    alone.source.pause()
    alone.source.poll(0, 0.05)
    alone.source.resume()
    again = gather(alone, 3 + 6 + 6)
    assert [offsets(again, partition) for partition in (0, 1, 2)] == [[3, 4, 5], list(range(6)), list(range(6))]


def test_what_is_assigned_while_paused_waits_too(member: Member) -> None:
    for partition in ALL:
        member.append(partition, 2)
    member.source.pause()
    joined(member)
    for _ in range(5):
        assert len(member.source.poll(10, 0.05)) == 0
    member.source.resume()
    records = gather(member, 2 * PARTITIONS)
    assert [offsets(records, partition) for partition in sorted(ALL)] == [[0, 1]] * PARTITIONS


# -- rebalances -------------------------------------------------------------------------------------------------------


def test_revoked_partitions_may_still_be_committed_when_told_and_go_then(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)

    def commit(partitions: frozenset[int]) -> None:
        for partition in partitions:
            alone.commit(partition, 5)

    alone.notes.then["revoked"] = commit
    with alone.share():
        poll_until(alone, lambda: bool(alone.notes.of("revoked")), "some partitions are revoked")
        _, gone, held = alone.notes.of("revoked")[0]
        assert gone
        assert gone <= held == ALL
        assert alone.source.assigned == ALL - gone
        assert {alone.committed(partition) for partition in gone} == {5}
        for partition in ALL:
            alone.append(partition, 1)
        records = gather(alone, len(ALL - gone))
        assert {record.partition for record in records} == ALL - gone
    poll_until(alone, lambda: alone.source.assigned == ALL, "what was shared comes back")
    assert alone.notes.of("lost") == []


def test_lost_partitions_are_gone_when_told_and_read_again_when_they_come_back(make: Make) -> None:
    member = make(1.0)
    for partition in ALL:
        member.append(partition, 3)
    joined(member)
    gather(member, 3 * PARTITIONS)
    member.source.hold(0, 2, member.clock() + 60.0)
    member.fall_out()
    again = poll_until(
        member,
        lambda: (
            bool(member.notes.of("lost")) and len(member.notes.of("assigned")) > 1 and member.source.assigned == ALL
        ),
        "lost, and assigned again",
    )
    _, gone, held = member.notes.of("lost")[0]
    assert gone == ALL
    assert held == frozenset()
    assert member.notes.of("revoked") == []
    assert member.source.held == frozenset()
    again += gather(member, 3 * PARTITIONS - len(again))
    assert [offsets(again, partition) for partition in sorted(ALL)] == [[0, 1, 2]] * PARTITIONS


@pytest.mark.parametrize("kind", ["paused", "held"])
def test_what_went_while_it_was_quiet_is_read_when_it_comes_back(alone: Member, kind: str) -> None:
    gather(alone, 6 * PARTITIONS)
    if kind == "paused":
        alone.source.pause()
    for partition in ALL:
        alone.commit(partition, 4)
        if kind == "held":
            alone.source.hold(partition, 2, alone.clock() + 5.0)
    with alone.share():
        poll_until(alone, lambda: alone.source.assigned != ALL, "some partitions are revoked")
        gone = ALL - alone.source.assigned
        if kind == "paused":
            alone.source.resume()
    records = poll_until(alone, lambda: alone.source.assigned == ALL, "what was shared comes back")
    records += gather(alone, 2 * len(gone) - len(records))
    assert {partition: offsets(records, partition) for partition in gone} == {each: [4, 5] for each in gone}


# -- lag, and leaving -------------------------------------------------------------------------------------------------


def test_lag_is_what_was_not_polled_and_the_age_of_what_was(alone: Member) -> None:
    records = gather(alone, 7, at_a_time=7)
    polled = {record.partition: record.next_offset for record in records}

    def lags() -> dict[int, tuple[int, float]]:
        return {lag.partition: (lag.records, lag.seconds) for lag in alone.source.lags(61_000)}

    expected = {p: (6 - end, 60.0 if end < 6 else 0.0) for p, end in polled.items()}
    wait_until(lambda: lags() == expected, f"lags {expected}")
    gather(alone, 6 * PARTITIONS - 7)
    wait_until(lambda: lags() == dict.fromkeys(ALL, (0, 0.0)), "no lag")


def test_leaving_tells_of_the_revocation_and_leaves_the_group(alone: Member) -> None:
    gather(alone, 6 * PARTITIONS)
    alone.close()
    assert alone.notes.of("revoked") == [("revoked", ALL, ALL)]
    assert alone.source.assigned == frozenset()
