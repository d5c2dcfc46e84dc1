"""The guard needs a backup that isn't there yet, under a running worker in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.loop_swaps import LIMITS, LoopSwaps, ended, guarded, latest
from worker.errors import EngineError
from worker.handover import Left

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@pytest.fixture
def made() -> Iterator[list[LoopSwaps]]:
    yield from ended()


@BOTH
def test_a_trip_before_the_backup_is_loaded_waits_for_it(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    world.handover.backup_expected = True
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    for _ in range(10):
        world.finish()
        world.step(0.3)
    assert world.rig.broker.published == []
    assert world.rig.worker.stuck is None
    reasons = latest(world).not_ready
    assert len(reasons) == 1
    assert "waits up to 30 s for the backup" in reasons[0]
    world.order(world.versions[0], world.make())
    world.handover.backup_expected = False
    world.settle()
    assert {(version, digest) for version, digest, _ in world.by()} == {("2", "02")}
    assert latest(world).ready
    (left,) = [report for report in world.reports if isinstance(report, Left)]
    assert (left.version, left.now, left.told, left.held) == (
        *(world.versions[0].version, world.versions[1].version),
        *(False, False),
    )
    assert world.handover.left.get_nowait() == left  # all workers are told


def test_rows_that_only_the_backup_can_forecast_wait_for_it(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.handover.backup_expected = True
    world.engine(1).spoilt = frozenset({101.0})
    world.send(*range(100, 104))
    world.step(0.3, times=5)
    assert world.rig.broker.published == []
    world.order(world.versions[0], world.make())
    world.settle()
    assert set(world.by()) == {("1", "fa", None), ("2", "02", "guard:not_finite")}
    assert sum(world.rig.outcomes().values()) == 4


def test_an_engine_that_fails_waits_for_the_backup_too(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.handover.backup_expected = True
    world.engine(1).dead = True
    world.send(*range(100, 104))
    world.step(0.3, times=5)
    world.order(world.versions[0], world.make())
    world.settle()
    assert world.by() == [("2", "02", "engine_error")]


def test_another_version_ends_the_wait(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.handover.backup_expected = True
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    world.step(0.3, times=5)
    world.order(world.make(), world.versions[0])
    world.settle()
    assert world.by() == [("2", "02", None)]


def test_a_wait_that_was_in_vain_ends_as_without_a_backup(made: list[LoopSwaps]) -> None:
    """The version is quarantined, and nothing is computed before another one is there."""
    world = guarded(made)
    world.handover.backup_expected = True
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    world.step(0.3, times=5)
    world.step(31.0, times=3)
    assert world.rig.broker.published == []
    assert "no other version can serve" in latest(world).not_ready[-1]
    assert world.rig.worker.stuck is None
    left = world.handover.left.get_nowait()
    assert (left.version, left.held, left.told) == (world.versions[0].version, True, False)
    world.order(world.make())
    world.settle()
    assert world.by() == [("2", "02", None)]
    assert latest(world).ready


def test_a_wait_that_was_in_vain_publishes_by_setting(made: list[LoopSwaps]) -> None:
    world = guarded(made, LIMITS.model_copy(update={"without_backup": "publish"}))
    world.handover.backup_expected = True
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    world.step(0.3, times=5)
    assert world.rig.broker.published == []
    world.step(31.0)
    world.settle()
    assert world.by() == [("1", "fa", None)]
    assert sum(latest(world).guard_trips.values()) > 0


def test_a_failing_engine_ends_the_process_when_the_wait_was_in_vain(made: list[LoopSwaps]) -> None:
    world = guarded([])
    world.handover.backup_expected = True
    world.engine(1).dead = True
    world.send(100.0, 101.0)
    world.step(0.3, times=5)
    world.rig.clock.advance(31.0)
    with pytest.raises(EngineError, match="nothing works"):
        world.step(0.3, times=5)
    assert made == []


def test_a_second_wait_is_as_long_as_the_first(made: list[LoopSwaps]) -> None:
    world = guarded(made, LIMITS.model_copy(update={"without_backup": "publish"}))
    world.handover.backup_expected = True
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    world.step(0.3, times=5)
    world.step(31.0)
    world.settle()
    world.handover.backup_expected = False
    world.step()
    world.handover.backup_expected = True
    count = len(world.rig.broker.published)
    world.send(*range(112, 124))
    world.step(0.3, times=20)
    assert len(world.rig.broker.published) == count
    world.handover.backup_expected = False
    world.settle()


def test_a_version_held_back_by_the_guard_is_not_let_go_by_news_of_others(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.engine(1).scale = 1.3
    world.send(*range(100, 112))
    world.step(0.3, times=5)
    assert world.rig.engines.held is not None
    stranger = world.make()
    world.quarantine(stranger)
    world.step(0.3, times=3)
    assert world.rig.engines.held is not None
    world.quarantine(stranger, world.versions[0])  # it comes back from the fleet
    world.step(0.3, times=3)
    assert world.rig.engines.held is not None
    assert world.kinds() == {Left: 1}
    world.engine(1).scale = 1.0
    world.quarantine()  # released
    world.settle()
    assert world.by() == [("1", "fa", None)]
    stranger.close()
