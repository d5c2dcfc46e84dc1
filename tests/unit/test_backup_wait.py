from __future__ import annotations

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from worker.backup_wait import BackupWait
from worker.handover import Fitted, Handover, Order
from worker.hotswap import EngineSlot
from worker.version_choice import VersionId


class Expecting:
    """A slot without a backup, one on its way, and a wait of ten seconds."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.handover = Handover()
        self.first, self.second = (Fitted(FakeEngine({"sales": 3}), VersionId(n, n * 64)) for n in "12")
        self.slot = EngineSlot(self.first.engine, handover=self.handover, versions=[self.first])
        self.wait = BackupWait(self.slot, most_s=10.0, clock=self.clock)
        self.handover.backup_expected = True

    def held(self) -> bool:
        return self.wait.held is not None

    def arrive(self) -> None:
        self.handover.orders.put(Order(serving=self.first, backup=self.second, rollbacks=0))
        self.slot.turn_over(lambda _: False)


def test_nothing_waits_before_a_backup_is_missed() -> None:
    assert not Expecting().held()


def test_it_waits_until_the_backup_is_there() -> None:
    world = Expecting()
    assert world.wait.needs("shift: far off")
    assert world.wait.held == "shift: far off; waits up to 10 s for the backup, which is being loaded"
    world.clock.advance(9.0)
    assert world.held()
    world.arrive()
    assert not world.held()
    assert not world.wait.needs("shift: far off")


def test_it_does_not_wait_where_no_backup_is_coming() -> None:
    world = Expecting()
    world.handover.backup_expected = False
    assert not world.wait.needs("shift: far off")
    assert not world.held()


def test_it_ends_when_none_is_coming_any_more() -> None:
    world = Expecting()
    world.wait.needs("shift: far off")
    world.handover.backup_expected = False
    assert not world.held()


def test_it_ends_after_its_time_and_does_not_begin_again_for_the_same_backup() -> None:
    world = Expecting()
    world.wait.needs("shift: far off")
    world.clock.advance(6.0)
    assert world.wait.needs("shift: farther off")  # not ten more seconds
    world.clock.advance(4.0)
    assert not world.held()
    assert not world.wait.needs("shift: far off")


def test_it_ends_when_another_version_serves() -> None:
    world = Expecting()
    world.wait.needs("shift: far off")
    world.handover.orders.put(Order(serving=world.second, backup=None, rollbacks=0))
    world.slot.turn_over(lambda _: False)
    assert world.slot.backup_expected
    assert not world.held()
    assert world.wait.needs("shift: far off, too")


def test_the_next_backup_is_waited_for_anew() -> None:
    world = Expecting()
    world.wait.needs("shift: far off")
    world.clock.advance(11.0)
    assert not world.held()
    world.arrive()
    assert not world.held()
    world.slot.roll_back("guard:shift")
    assert world.wait.needs("shift: far off")
