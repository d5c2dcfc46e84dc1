from __future__ import annotations

from typing import cast

import pytest

from tests.helpers.clock import ManualClock
from worker.deadline import Deadline
from worker.errors import FatalDeliveryError, FencedError, ReplayStoppedError
from worker.replay import SETTLE_S, StopSignal, look_last
from worker.replay_delivery import ReplayDelivery

GRACE_S = 5.0


class Waiting:
    """A delivery whose last look never ends, as under somebody's open transaction. Someone stops it `stop_after_s` in."""

    def __init__(self, clock: ManualClock, stop_after_s: float, error: type[FatalDeliveryError]) -> None:
        self._clock = clock
        self._begun_s = clock()
        self._stop_at_s = clock() + stop_after_s
        self._error = error

    def settle(self, topic: str, deadline: Deadline) -> None:
        while not deadline.expired:
            self._clock.advance(1.0)
        raise self._error(f"{topic}: not to its end")

    def stopping(self) -> bool:
        return self._clock() >= self._stop_at_s

    @property
    def waited_s(self) -> float:
        return self._clock() - self._begun_s


def look(waiting: Waiting, clock: ManualClock) -> None:
    look_last(cast(ReplayDelivery, waiting), "in", StopSignal(waiting.stopping, GRACE_S, clock))


@pytest.mark.parametrize("stop_after_s", [0.0, 10.0])
def test_a_stop_bounds_the_last_look_by_the_grace_and_is_told_as_one(stop_after_s: float) -> None:
    clock = ManualClock()
    waiting = Waiting(clock, stop_after_s, FatalDeliveryError)
    with pytest.raises(ReplayStoppedError, match=r"within 5.0 s \(shutdown.grace_s\).*in: not to its end"):
        look(waiting, clock)
    assert waiting.waited_s == stop_after_s + GRACE_S


def test_what_was_drained_counts_toward_the_same_grace() -> None:
    clock = ManualClock()
    waiting = Waiting(clock, 0.0, FatalDeliveryError)
    stop = StopSignal(waiting.stopping, GRACE_S, clock)
    assert stop.until is not None
    clock.advance(3.0)
    with pytest.raises(ReplayStoppedError):
        look_last(cast(ReplayDelivery, waiting), "in", stop)
    assert waiting.waited_s == GRACE_S


def test_without_a_stop_the_last_look_has_its_time_and_fails_as_it_is() -> None:
    clock = ManualClock()
    waiting = Waiting(clock, 1e9, FatalDeliveryError)
    with pytest.raises(FatalDeliveryError, match="in: not to its end"):
        look(waiting, clock)
    assert waiting.waited_s == SETTLE_S


def test_who_was_fenced_hears_so_even_when_stopping() -> None:
    clock = ManualClock()
    with pytest.raises(FencedError):
        look(Waiting(clock, 0.0, FencedError), clock)
