"""The breaker against a list of all polls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.breaker import Breaker
from worker.records import Reason

polls = st.lists(
    st.integers(0, 12).flatmap(
        lambda records: st.tuples(st.just(records), st.lists(st.sampled_from(list(Reason)), max_size=records))
    ),
    max_size=40,
)


def window(seen: list[tuple[int, int]], records: int) -> tuple[int, int]:
    """Records and rejections of the fewest last polls that hold `records`; of all if they are fewer."""
    total = rejected = 0
    for more, bad in reversed(seen):
        if total >= records:
            break
        total, rejected = total + more, rejected + bad
    return total, rejected


@given(polls=polls, limit=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]), length=st.integers(1, 30))
def test_trips_with_the_first_window_that_holds_too_many(
    polls: list[tuple[int, list[Reason]]], limit: float, length: int
) -> None:
    breaker = Breaker(rejected_share=limit, window_records=length)
    seen: list[tuple[int, int]] = []
    for records, reasons in polls:
        before = breaker.tripped
        now = breaker.add(records, reasons)
        seen.append((records, len(reasons)))
        total, rejected = window(seen, length)
        too_many = total >= length and rejected > limit * total
        assert now is (before is None and too_many)
        assert (breaker.tripped is not None) is (before is not None or too_many)
        if now:
            assert f"{rejected} of the last {total} records" in str(breaker.tripped)
        if before is not None:
            assert breaker.tripped == before


@given(polls=polls, length=st.integers(1, 30))
def test_a_share_of_one_never_trips(polls: list[tuple[int, list[Reason]]], length: int) -> None:
    breaker = Breaker(rejected_share=1.0, window_records=length)
    assert not any(breaker.add(records, reasons) for records, reasons in polls)
    assert breaker.tripped is None
