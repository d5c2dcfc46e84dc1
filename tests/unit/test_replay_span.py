from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ConfigurationError
from worker.records import Span
from worker.replay_span import (
    Bound,
    Edges,
    bound_from_text,
    check_order,
    partitions_from_text,
    shares,
    spans_from_edges,
    utc,
)

EARLIEST, LATEST = Bound("earliest", 0, "earliest"), Bound("latest", 0, "latest")
NOON_MS = 1_700_000_000_000


def offset(number: int) -> Bound:
    return Bound("offset", number, f"offset:{number}")


def at(timestamp_ms: int) -> Bound:
    return Bound("time", timestamp_ms, utc(timestamp_ms))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("earliest", "earliest", 0),
        ("latest", "latest", 0),
        ("offset:17", "offset", 17),
        ("2023-11-14T22:13:20Z", "time", NOON_MS),
        ("2023-11-14T23:13:20.250+01:00", "time", NOON_MS + 250),
    ],
)
def test_bounds(text: str, kind: str, value: int) -> None:
    assert bound_from_text(text, "--from") == Bound(kind, value, text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "yesterday", "offset:", "offset:-3", "offset:1e3", "2023-13-01T00:00:00Z", "17"])
def test_what_is_no_bound(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--to: got .*, expected a time with its zone"):
        bound_from_text(text, "--to")


def test_a_time_needs_its_zone() -> None:
    with pytest.raises(ConfigurationError, match="a time without a zone, expected a time with its zone"):
        bound_from_text("2023-11-14T22:13:20", "--from")


def test_partitions() -> None:
    assert partitions_from_text(None) is None
    assert partitions_from_text("0, 3-5,4") == (0, 3, 4, 5)
    for wrong in ("", "a", "5-3", "-1", "1-2-3", "0-999999999"):
        with pytest.raises(ConfigurationError, match="--partitions: got"):
            partitions_from_text(wrong)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (offset(5), offset(5)),
        (offset(6), offset(5)),
        (at(NOON_MS), at(NOON_MS - 1)),
        (LATEST, LATEST),
        (LATEST, offset(3)),
        (offset(3), EARLIEST),
    ],
)
def test_a_span_that_runs_backwards_is_refused(since: Bound, until: Bound) -> None:
    with pytest.raises(ConfigurationError, match="isn't before the end"):
        check_order(since, until, NOON_MS)


def test_and_one_into_the_future() -> None:
    check_order(EARLIEST, at(NOON_MS), NOON_MS)
    with pytest.raises(ConfigurationError, match="got a time in the future, expected one that has passed"):
        check_order(EARLIEST, at(NOON_MS + 1), NOON_MS)


def test_earliest_to_latest_is_everything_that_is_decided() -> None:
    edges = {0: Edges(low=0, stable_end=7), 3: Edges(low=4, stable_end=9), 5: Edges(low=6, stable_end=6)}
    assert spans_from_edges(edges, EARLIEST, LATEST, allow_gaps=False) == {0: Span(0, 7), 3: Span(4, 9), 5: Span(6, 6)}


def test_times_are_the_first_record_of_each_partition_and_nothing_if_there_is_none() -> None:
    edges = {
        0: Edges(low=0, stable_end=100, since=(10, NOON_MS), until=(20, NOON_MS + 5)),
        1: Edges(low=0, stable_end=50, since=(30, NOON_MS + 1), until=None),
        2: Edges(low=0, stable_end=40, since=None, until=None),
        3: Edges(low=0, stable_end=40, since=(45, NOON_MS), until=(48, NOON_MS + 5)),  # still undecided
    }
    found = spans_from_edges(edges, at(NOON_MS), at(NOON_MS + 5), allow_gaps=False)
    assert found == {0: Span(10, 20), 1: Span(30, 50), 2: Span(40, 40), 3: Span(40, 40)}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    edges = {0: Edges(low=5, stable_end=20), 1: Edges(low=0, stable_end=8), 2: Edges(low=0, stable_end=20)}
    with pytest.raises(ConfigurationError) as raised:
        spans_from_edges(edges, offset(3), offset(10), allow_gaps=False)
    later = "start later, or say --allow-gaps to replay what is left"
    smaller = "choose a smaller one, or name the partitions that reach so far with --partitions"
    assert str(raised.value).splitlines() == [
        "the span isn't on the topic:",
        f"  - partition 0: --from offset:3: the oldest record left is at offset 5; {later}",
        f"  - partition 1: --to offset:10: got an offset behind the end, expected at most 8; {smaller}",
    ]


def test_gaps_are_allowed_if_they_are_asked_for() -> None:
    edges = {0: Edges(low=5, stable_end=20), 1: Edges(low=15, stable_end=20)}
    found = spans_from_edges(edges, offset(3), offset(10), allow_gaps=True)
    assert found == {0: Span(5, 10), 1: Span(15, 15)}


def test_a_time_before_what_deletion_left_is_refused_but_not_before_the_very_first_record() -> None:
    whole = {0: Edges(low=0, stable_end=9, since=(0, NOON_MS + 1000))}
    assert spans_from_edges(whole, at(NOON_MS), LATEST, allow_gaps=False) == {0: Span(0, 9)}
    later = {0: Edges(low=4, stable_end=9, since=(6, NOON_MS + 1000))}
    assert spans_from_edges(later, at(NOON_MS), LATEST, allow_gaps=False) == {0: Span(6, 9)}
    cut = {0: Edges(low=4, stable_end=9, since=(4, NOON_MS + 1000))}
    with pytest.raises(
        ConfigurationError, match=r"offset 4, is of 2023-11-14T22:13:21.000Z, and older ones were deleted"
    ):
        spans_from_edges(cut, at(NOON_MS), LATEST, allow_gaps=False)


def test_a_time_of_which_deletion_left_no_record_at_all_is_refused() -> None:
    empty = {0: Edges(low=500, stable_end=500), 1: Edges(low=0, stable_end=0), 2: Edges(low=3, stable_end=9)}
    with pytest.raises(ConfigurationError, match="no record is left of those before offset 500") as raised:
        spans_from_edges(empty, at(NOON_MS), LATEST, allow_gaps=False)
    assert len(str(raised.value).splitlines()) == 2, "neither the one that never had any, nor the one with older ones"
    found = spans_from_edges(empty, at(NOON_MS), LATEST, allow_gaps=True)
    assert found == {0: Span(500, 500), 1: Span(0, 0), 2: Span(9, 9)}


def test_an_offset_start_behind_a_time_end() -> None:
    edges = {0: Edges(low=0, stable_end=30, until=(10, NOON_MS))}
    with pytest.raises(ConfigurationError, match=r"is offset 20, --to .* offset 10: the start is behind the end"):
        spans_from_edges(edges, offset(20), at(NOON_MS), allow_gaps=False)


@given(partitions=st.sets(st.integers(0, 100), max_size=30), workers=st.integers(1, 10))
def test_shares_are_disjoint_complete_and_even(partitions: set[int], workers: int) -> None:
    found = shares(list(partitions), workers)
    assert sorted(p for share in found for p in share) == sorted(partitions)
    sizes = [len(share) for share in found]
    assert len(found) == workers
    assert max(sizes) - min(sizes) <= 1
