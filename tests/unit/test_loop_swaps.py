"""Versions change under a running worker in memory: nothing is lost, doubled, or published by what may not serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.loop_swaps import LIMITS, REFERENCE, LoopSwaps, ended, guarded, latest
from worker.handover import Declined, Freed, Left, Turned

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@pytest.fixture
def made() -> Iterator[list[LoopSwaps]]:
    yield from ended()


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
def test_an_engine_is_freed_behind_a_commit(
    made: list[LoopSwaps],
    monkeypatch: pytest.MonkeyPatch,
    asynchronous: bool,  # noqa: FBT001
) -> None:
    """Freeing one can hold the loop up, which shall not hit a commit."""
    world = guarded(made, asynchronous=asynchronous)
    world.send(*range(100, 104))
    world.step(0.01, times=2)
    world.finish()
    world.step(0.01)
    assert world.rig.delivery.is_open
    world.order(world.make())
    world.step(0.01, times=5)
    assert world.kinds() == {Turned: 1}
    assert not world.engine(1).closed
    reports_at_commit: list[int] = []
    commit = world.rig.delivery.commit

    def watched(*arguments: Any) -> None:
        reports_at_commit.append(world.handover.inbox.qsize())
        commit(*arguments)

    monkeypatch.setattr(world.rig.delivery, "commit", watched)
    world.settle()
    assert reports_at_commit == [0]
    world.step()
    assert world.kinds() == {Turned: 1, Freed: 1}
    assert (world.engine(1).closed, world.standby(1).closed) == (True, True)


@BOTH
def test_a_commit_that_is_held_does_not_keep_an_engine(made: list[LoopSwaps], asynchronous: bool) -> None:  # noqa: FBT001
    """The guard needs more rows of a new version than come; `models.hold_s` is four commit intervals."""
    unsure = LIMITS.model_copy(update={"full_rows": 2048, "window_rows": 4096})
    world = LoopSwaps(reference=REFERENCE, limits=unsure, asynchronous=asynchronous, hold_s=2.0)
    made.append(world)

    def serve_until(report: type, most: int) -> float:
        began_s = world.rig.clock()
        for mark in range(most):
            world.send(100.0 + mark % 300)
            world.finish()
            world.step(0.02)
            if world.kinds()[report]:
                break
        return world.rig.clock() - began_s

    serve_until(Freed, 60)
    world.order(world.make())
    assert serve_until(Turned, 10) < 0.1
    assert serve_until(Freed, 100) < 1.0
    assert world.engine(1).closed
    world.step(2.0)
    world.settle()


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
