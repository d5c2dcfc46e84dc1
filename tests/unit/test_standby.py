from __future__ import annotations

import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from tests.helpers.faulty import FaultyEngine
from worker.errors import FatalEngineError, OutOfDeviceMemoryError
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


def test_a_trial_is_not_waited_for(pair: Pair) -> None:
    slow = FaultyEngine({"sales": 3}, max_rows=8, slots=1, asynchronous=True)
    pair.standby.enter(slow)
    pair.clock.advance(31.0)
    assert not pair.standby.try_primary()
    assert (pair.standby.uses(slow), pair.standby.active, slow.blocked) == (True, True, 0)
    slow.finish()
    assert pair.standby.try_primary()
    assert (pair.standby.uses(slow), pair.standby.active, slow.free) == (False, False, 1)


def test_a_trial_that_fails_late_is_repeated_later(pair: Pair) -> None:
    slow = FaultyEngine({"sales": 3}, max_rows=8, slots=1, asynchronous=True)
    slow.fail_collect = [OutOfDeviceMemoryError("got 1 GiB, needs 2")]
    pair.standby.enter(slow)
    pair.clock.advance(31.0)
    assert not pair.standby.try_primary()
    slow.finish()
    assert not pair.standby.try_primary()
    assert (pair.standby.active, slow.free) == (True, 1)
    pair.clock.advance(31.0)
    assert not pair.standby.try_primary()
    slow.finish()
    assert pair.standby.try_primary()


def test_forgetting_gives_back_the_slot_of_a_trial(pair: Pair) -> None:
    slow = FaultyEngine({"sales": 3}, max_rows=8, slots=1, asynchronous=True)
    pair.standby.enter(slow)
    pair.clock.advance(31.0)
    pair.standby.try_primary()
    pair.standby.forget()
    assert (pair.standby.uses(slow), slow.free, slow.outstanding) == (False, 1, 0)


def test_a_stand_by_of_one_version_is_still_one_when_another_version_has_its_own(pair: Pair) -> None:
    others = {id(pair.primary): pair.second}
    standby = StandBy(lambda engine: others.get(id(engine)), retry_s=30.0, probe_rows=4, clock=pair.clock)
    standby.enter(pair.primary)
    newer, its_own = FaultyEngine({"sales": 3}, max_rows=8), FakeEngine({"sales": 3}, max_rows=8)
    others[id(newer)] = its_own
    assert standby.enter(newer) is its_own
    assert standby.instead_of(newer) is its_own
    assert standby.instead_of(pair.primary) is pair.primary
    assert standby.is_standby(pair.second)
    assert standby.is_standby(its_own)
