from tests.helpers.clock import ManualClock
from worker.deadline import Deadline


def test_counts_down_on_the_given_clock_and_stops_at_zero() -> None:
    clock = ManualClock(50.0)
    deadline = Deadline.after(2.0, clock)
    assert (deadline.at_s, deadline.remaining_s, deadline.expired) == (52.0, 2.0, False)
    clock.advance(1.5)
    assert (deadline.remaining_s, deadline.expired) == (0.5, False)
    clock.advance(0.5)
    assert (deadline.remaining_s, deadline.expired) == (0.0, True)
    clock.advance(10.0)
    assert (deadline.remaining_s, deadline.expired) == (0.0, True)


def test_a_deadline_of_no_time_is_over_at_once() -> None:
    assert Deadline.after(0.0, ManualClock()).expired
