"""Versions change under a running worker in memory: nothing is lost, doubled, or published by what may not serve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.helpers.loop_swaps import LoopSwaps
from worker.errors import EngineError
from worker.guard_reference import EDGES, Reference
from worker.handover import Declined, Freed, Left, Turned
from worker.settings_guard import GuardSettings
from worker.statistics import Statistics

SHARES = np.eye(len(EDGES) - 1)[10]
REFERENCE = Reference(
    mean_of="sales", edges=EDGES, shares=SHARES, mean=0.1, control={"sales": np.full((1, 3), 500.0, np.float32)}
)
LIMITS = GuardSettings(least_rows=4, full_rows=4, window_rows=16, fault_share=0.5, poison_rows=2)
BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@pytest.fixture
def made() -> Iterator[list[LoopSwaps]]:
    """Whatever a test did: in the end each event has one outcome, and every engine is closed."""
    worlds: list[LoopSwaps] = []
    yield worlds
    for world in worlds:
        world.assert_once()
        world.end()


def guarded(made: list[LoopSwaps], limits: GuardSettings = LIMITS, **options: object) -> LoopSwaps:
    made.append(LoopSwaps(reference=REFERENCE, limits=limits, **options))  # type: ignore[arg-type]
    return made[-1]


def latest(world: LoopSwaps) -> Statistics:
    world.step(1.0)
    return world.rig.worker.statistics


# -- swaps ------------------------------------------------------------------------------------------------------------


@BOTH
def test_a_batch_ends_on_the_version_that_it_was_opened_with(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    world.send(*range(100, 106))
    world.send(*range(200, 206), partition=1)
    world.step(times=2)
    world.order(world.make(), world.versions[0])
    world.send(*range(106, 112))
    world.send(*range(206, 212), partition=1)
    world.settle()
    assert world.runs() == {0: ["1", "2"], 1: ["1", "2"]}
    assert world.kinds() == {Turned: 1}
    assert world.rig.engines.backup is world.engine(1)


@BOTH
def test_an_engine_is_freed_after_its_last_batch(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    world.send(*range(100, 104))
    world.step(times=2)
    world.order(world.make())
    if asynchronous:
        world.step(times=2)
        assert world.kinds() == {Turned: 1}
        assert not world.engine(1).closed
    world.settle()
    world.step()
    assert world.kinds() == {Turned: 1, Freed: 1}
    assert (world.engine(1).closed, world.standby(1).closed) == (True, True)
    assert (world.engine(2).closed, world.standby(2).closed) == (False, False)


@BOTH
def test_the_version_changes_once_per_swap_and_partition(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    before = world.versions[0]
    for number in range(2, 12):
        world.send(*range(100, 107))
        world.send(*range(100, 105), partition=1)
        world.step(0.01, times=number % 3)
        after = world.make()
        world.order(after, before)
        world.step(0.01, times=2)
        world.send(100.0)
        world.settle()
        before = after
    names = ["1", *(str(number) for number in range(2, 12))]
    for found in world.runs().values():
        assert found == [name for name in names if name in found]
    assert world.runs()[0] == names
    world.step()
    assert world.kinds() == {Turned: 10, Freed: 9}


@BOTH
def test_a_quarantine_discards_what_is_not_committed(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    world.order(world.make(), world.versions[0])
    world.step()
    world.send(*range(100, 110))
    world.step(0.01, times=2)
    world.finish()
    world.step(0.01)
    assert world.rig.delivery.is_open
    world.quarantine(world.versions[1])
    world.step()
    assert (world.rig.delivery.is_open, world.rig.delivery.aborted) == (False, 1)
    world.settle()
    assert world.runs() == {0: ["1"]}
    (left,) = [report for report in world.reports if isinstance(report, Left)]
    assert (left.version, left.now, left.told) == (world.versions[1].version, world.versions[0].version, True)


def test_with_no_other_version_it_holds_until_one_is_handed_over(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.send(100.0, 101.0)
    world.quarantine(world.versions[0])
    world.step(0.3, times=5)
    assert world.rig.broker.published == []
    assert "no other version can serve" in latest(world).not_ready[-1]
    world.order(world.make())
    world.settle()
    assert world.runs() == {0: ["2"]}
    assert latest(world).ready


def test_an_order_for_a_version_that_was_quarantined_meanwhile_is_declined(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.order(world.make())
    world.quarantine(world.versions[1])
    world.send(100.0)
    world.settle()
    assert world.runs() == {0: ["1"]}
    assert world.kinds() == {Declined: 1}


# -- the device is full ------------------------------------------------------------------------------------------------


@BOTH
def test_after_a_swap_the_stand_by_computes_the_new_version(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    world = guarded(made, asynchronous=asynchronous)
    world.engine(1).memory_rows = 0
    world.send(*range(100, 104))
    world.settle()
    assert world.by() == [("1", "51", "onnx_standby")]
    assert latest(world).standby
    world.order(world.make(), world.versions[0])
    world.step()
    world.send(*range(104, 108))
    world.settle()
    assert world.by()[1:] == [("2", "02", None)]
    assert not latest(world).standby
    world.engine(2).memory_rows = 0
    world.send(*range(108, 112))
    world.settle()
    assert world.by()[2:] == [("2", "52", "onnx_standby")]
    counted = latest(world)
    assert (counted.standby, counted.ready, counted.fallbacks["onnx_standby"]) == (True, True, 8)
    assert "stand-by computes" in counted.notes[0]
    world.engine(2).memory_rows = None
    world.step(31.0)
    for first in (112, 116, 120):  # one opens the trial, another sees what came of it
        world.send(*range(first, first + 4))
        world.settle()
    assert world.by()[-1] == ("2", "02", None)
    assert not latest(world).standby


def test_half_the_batch_comes_before_the_stand_by_also_after_a_swap(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.order(world.make(), world.versions[0])
    world.step()
    world.engine(2).memory_rows = 2
    world.send(*range(100, 108))
    world.settle()
    assert world.by() == [("2", "02", None)]
    assert world.standby(2).submitted_rows == []
    assert max(world.engine(2).submitted_rows) == 2


def test_the_stand_bys_last_batches_keep_their_version_alive_and_their_reason(made: list[LoopSwaps]) -> None:
    world = guarded(made, asynchronous=True)
    world.engine(1).memory_rows = 0
    world.send(*range(100, 104))
    world.settle()
    world.send(*range(104, 108))
    world.step(0.01, times=2)  # with the stand-by of version 1, and not done
    assert world.standby(1).outstanding == 1
    world.order(world.make())
    world.step(times=3)
    assert not world.standby(1).closed
    world.engine(2).memory_rows = 0
    world.send(*range(108, 112))
    world.settle()
    assert world.by() == [("1", "51", "onnx_standby"), ("2", "52", "onnx_standby")]
    world.step()
    assert (world.engine(1).closed, world.standby(1).closed) == (True, True)


def test_a_trial_of_a_full_device_keeps_its_engine_open_through_a_swap(made: list[LoopSwaps]) -> None:
    world = guarded(made, asynchronous=True)
    world.engine(1).memory_rows = 0
    world.send(*range(100, 104))
    world.settle()
    world.step()
    world.engine(1).memory_rows = None
    world.rig.clock.advance(31.0)
    world.send(*range(104, 108))
    world.settle()
    world.rig.clock.advance(31.0)
    world.engine(1).memory_rows = None
    world.order(world.make())
    world.send(*range(108, 116))
    world.settle()
    world.step(times=2)
    assert world.engine(1).free == 2
    assert world.engine(1).closings == 1  # type: ignore[attr-defined]


def test_a_rolled_back_version_takes_its_stand_by_with_it(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.order(world.make(), world.versions[0])
    world.step()
    world.engine(2).memory_rows = 0
    world.standby(2).scale = 1.3
    world.send(*range(100, 112))
    world.settle()
    assert {version for version, _, _ in world.by()} == {"1"}
    assert not latest(world).standby
    world.step()
    assert (world.engine(2).closed, world.standby(2).closed) == (True, True)
    world.engine(1).memory_rows = 0
    world.send(*range(112, 116))
    world.settle()
    assert world.by()[-1] == ("1", "51", "onnx_standby")


# -- the guard needs a backup that isn't there yet ---------------------------------------------------------------------


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


def test_a_quarantine_comes_before_a_commit_that_is_due(made: list[LoopSwaps]) -> None:
    world = guarded(made)
    world.order(world.make(), world.versions[0])
    world.step()
    world.send(*range(100, 104))
    world.step(0.03, times=3)
    assert world.rig.delivery.is_open
    world.quarantine(world.versions[1])
    world.step(0.6)
    assert world.rig.broker.published == []
    world.settle()
    assert world.by() == [("1", "fa", "quarantined")]
