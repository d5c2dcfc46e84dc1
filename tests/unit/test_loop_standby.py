"""The device's memory runs out under a running worker whose versions change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.loop_swaps import LoopSwaps, ended, guarded, latest

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@pytest.fixture
def made() -> Iterator[list[LoopSwaps]]:
    yield from ended()


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
