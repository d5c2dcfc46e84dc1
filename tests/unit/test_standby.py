from __future__ import annotations

import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from tests.helpers.faulty import FaultyEngine
from worker.errors import FatalEngineError
from worker.standby import StandBy


class Pair:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.primary = FaultyEngine({"sales": 3}, max_rows=8, slots=1)
        self.second = FakeEngine({"sales": 3}, max_rows=8)
        self.standby = StandBy(lambda _: self.second, retry_s=30.0, probe_rows=4, clock=self.clock)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_nobody_stands_in_until_asked(pair: Pair) -> None:
    assert pair.standby.instead_of(pair.primary) is pair.primary
    assert not pair.standby.active
    assert not pair.standby.try_primary()


def test_it_stands_in_for_one_engine_only(pair: Pair) -> None:
    assert pair.standby.enter(pair.primary) is pair.second
    other = FakeEngine({"sales": 3})
    assert pair.standby.instead_of(pair.primary) is pair.second
    assert pair.standby.instead_of(other) is other
    assert (pair.standby.active, pair.standby.primary) == (True, pair.primary)


def test_without_a_stand_by_nothing_is_entered(pair: Pair) -> None:
    for nobody in (None, pair.primary):
        standby = StandBy(lambda _, nobody=nobody: nobody, retry_s=30.0, probe_rows=4, clock=pair.clock)  # type: ignore[misc]
        assert standby.enter(pair.primary) is None
        assert not standby.active


def test_the_primary_is_tried_at_intervals_with_few_rows_and_taken_back_when_it_works(pair: Pair) -> None:
    pair.primary.memory_rows = 2
    pair.standby.enter(pair.primary)
    pair.clock.advance(29.0)
    pair.primary.memory_rows = None
    assert not pair.standby.try_primary()  # not yet
    pair.primary.memory_rows = 2
    pair.clock.advance(2.0)
    assert not pair.standby.try_primary()  # still full
    pair.primary.memory_rows = 4
    assert not pair.standby.try_primary()  # tried just now
    pair.clock.advance(31.0)
    assert pair.standby.try_primary()
    assert pair.primary.submitted_rows == [4]
    assert (pair.standby.active, pair.standby.instead_of(pair.primary), pair.primary.free) == (False, pair.primary, 1)
    assert pair.standby.is_standby(pair.second)  # its last batches still say so


def test_a_primary_without_a_free_slot_is_tried_later(pair: Pair) -> None:
    pair.standby.enter(pair.primary)
    pair.clock.advance(31.0)
    held = pair.primary.acquire()
    assert held is not None
    assert not pair.standby.try_primary()
    assert pair.standby.active


def test_a_primary_that_is_lost_ends_it(pair: Pair) -> None:
    pair.standby.enter(pair.primary)
    pair.clock.advance(31.0)
    pair.primary.lost = True
    with pytest.raises(FatalEngineError):
        pair.standby.try_primary()
