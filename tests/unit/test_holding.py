"""A version must go and there is no backup: what the loader and the slot make of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.store import TestStore, truncated
from tests.helpers.swapping import Swapping
from worker.control import Command, Kind
from worker.model_status import Outcome
from worker.version_states import State


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1")
    return store


def held(world: Swapping) -> str:
    return str(world.slot.held)


def told_held(world: Swapping) -> str:
    """As the newest state for the fleet says it."""
    return str(world.told[-1].held)


def expected(world: Swapping) -> bool:
    return world.slot.backup_expected


def test_the_version_before_is_loaded_although_no_backup_is_kept(store: TestStore) -> None:
    v2 = store.publish("v2")
    world = Swapping(store, keep_backup=False)
    world.settle()
    assert world.slot.hold("guard:shift")
    assert held(world) == "guard:shift; no other version can serve: release it, or publish another one"
    world.settle()
    assert (world.serving, held(world)) == ("v1", "None")
    assert world.status.quarantined == {v2: "guard:shift"}
    assert world.status.outcomes[Outcome.ROLLED_BACK] == 1
    assert world.status.states[v2] is State.RETIRED
    assert world.open() == ["v1"]
    assert world.handover.left.get_nowait().version == v2
    world.close()


def test_with_a_single_version_it_holds_until_the_next_one(store: TestStore) -> None:
    world = Swapping(store)
    world.slot.hold("guard:shift")
    world.settle()
    assert "no other version can serve" in held(world)
    assert told_held(world) == "guard:shift"
    store.publish("v2")
    world.settle()
    assert (world.serving, held(world)) == ("v2", "None")
    assert told_held(world) == "None"
    world.close()


def test_what_was_on_its_way_is_declined_and_thought_out_anew(store: TestStore) -> None:
    store.publish("v2")
    world = Swapping(store)
    world.load()  # v1 as backup is in the mailbox
    world.slot.hold("guard:shift")
    world.step()
    assert "no other version can serve" in held(world)
    world.settle()
    assert (world.serving, held(world)) == ("v1", "None")
    assert world.open() == ["v1"]
    world.close()


def test_the_fleets_word_comes_back_and_is_counted_once(store: TestStore) -> None:
    world = Swapping(store)
    v1 = store.version("v1")
    world.slot.hold("guard:shift")
    world.settle()
    for released in (False, True):
        command = Command(
            model="tiny", kind=Kind.QUARANTINE, version=v1, reason="guard:shift", by="w", at_ms=1, released=released
        )
        world.commands = world.commands.after(command)
        world.handover.quarantined = world.commands.of("tiny").quarantined
        assert world.step() is None  # nothing uncommitted was left
        world.settle()
        assert (held(world) == "None") == released
    assert (world.status.outcomes[Outcome.ROLLED_BACK], world.status.outcomes[Outcome.LEFT]) == (1, 0)
    assert world.serving == "v1"
    world.close()


def test_a_single_model_has_nobody_to_bring_another() -> None:
    from tests.helpers.engines import FakeEngine  # noqa: PLC0415 - beside its only use
    from worker.hotswap import EngineSlot  # noqa: PLC0415 - likewise

    slot = EngineSlot(FakeEngine({"sales": 3}))
    assert not slot.hold("guard:shift")
    assert slot.held is None


def test_a_backup_is_expected_from_the_start_until_it_is_there(store: TestStore) -> None:
    store.publish("v2")
    world = Swapping(store)
    assert expected(world)
    world.settle()
    assert not expected(world)
    world.close()


@pytest.mark.parametrize("keep_backup", [False, True])
def test_no_backup_is_expected_where_none_is_kept_or_can_be(store: TestStore, keep_backup: bool) -> None:  # noqa: FBT001
    if keep_backup:
        truncated(store.folder / "v1")
        os.utime(store.folder / "v1" / "model.onnx", (0, 0))  # as old as it was
    store.publish("v2")
    world = Swapping(store, keep_backup=keep_backup)
    assert expected(world) == keep_backup  # nobody has looked at it yet
    world.settle()
    assert not expected(world)
    world.close()
