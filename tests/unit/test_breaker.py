import pytest

from worker.breaker import Breaker
from worker.records import Reason


def rejected(count: int, reason: Reason = Reason.TRUNCATED) -> list[Reason]:
    return [reason] * count


def test_is_judged_only_when_the_window_is_full() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=10)
    assert not breaker.add(9, rejected(9))
    assert breaker.tripped is None
    assert breaker.add(1, [])
    assert breaker.tripped is not None


def test_the_share_itself_is_still_allowed() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=10)
    assert not breaker.add(10, rejected(5))
    assert breaker.add(10, rejected(6))


def test_trips_once_and_stays_tripped() -> None:
    breaker = Breaker(rejected_share=0.1, window_records=4)
    assert breaker.add(4, rejected(4))
    why = breaker.tripped
    assert not breaker.add(4, rejected(4))
    assert not breaker.add(1000, [])
    assert breaker.tripped == why


def test_says_how_many_of_which_kind_and_what_to_do() -> None:
    breaker = Breaker(rejected_share=0.25, window_records=4)
    breaker.add(4, [*rejected(2, Reason.BAD_MAGIC), *rejected(1)])
    message = str(breaker.tripped)
    assert message.startswith("3 of the last 4 records were rejected (bad_magic 2, truncated 1)")
    assert "breaker.rejected_share 0.25" in message
    assert "restart" in message


def test_old_polls_leave_the_window() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=10)
    breaker.add(10, rejected(5))
    breaker.add(10, [])  # the first poll isn't needed any more to fill the window
    assert not breaker.add(10, rejected(5))
    assert not breaker.add(5, [])
    assert breaker.add(10, rejected(6))


def test_polls_without_records_change_nothing() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=2)
    for _ in range(5):
        assert not breaker.add(0, [])
    assert breaker.add(2, rejected(2))
    assert breaker.tripped is not None
    assert "2 of the last 2" in breaker.tripped


@pytest.mark.parametrize("records", [1, 100])
def test_a_share_of_one_never_trips(records: int) -> None:
    breaker = Breaker(rejected_share=1.0, window_records=1)
    assert not breaker.add(records, rejected(records))
    assert breaker.tripped is None


def test_bad_forecasts_count_for_records_that_were_counted_before() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=10)
    assert not breaker.add(10, [])
    assert not breaker.add(0, rejected(5, Reason.BAD_FORECAST))
    assert breaker.add(0, rejected(1, Reason.BAD_FORECAST))
    assert breaker.tripped is not None
    assert "6 of the last 10 records were rejected (bad_forecast 6)" in breaker.tripped


def test_forgetting_starts_a_new_window_but_mends_nothing() -> None:
    breaker = Breaker(rejected_share=0.5, window_records=10)
    breaker.add(9, rejected(9))
    breaker.forget()
    assert not breaker.add(9, rejected(9))
    assert breaker.add(1, [])
    breaker.forget()
    assert breaker.tripped is not None
