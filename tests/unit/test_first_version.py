from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.engine_card import CARD_NAME, EngineCard
from schemas.model_store import MODEL_NAME
from tests.helpers.clock import ManualClock
from tests.helpers.store import TestStore, truncated
from tests.helpers.swapping import make
from worker.control import Command, Commands, Kind
from worker.engine import Engine
from worker.errors import ContractError, FatalEngineError
from worker.first_version import First, first_version
from worker.loading import Loader, Room
from worker.memory_room import NoRoomError
from worker.model_status import Phase
from worker.store_listing import StoreView
from worker.version_choice import Rule, VersionId


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = TestStore(folder)
        self.commands = Commands.none()
        self.view = StoreView(folder, "tiny")
        self.made: list[str] = []
        self.before: Callable[[str], None] = lambda _: None

    def start(self, *, older: bool = True) -> First:
        room = Room(slots=2, max_rows=8, headroom_bytes=0, host_free=lambda: None, device=lambda: None)
        loader = Loader(store=self.store.folder, make=self.make, room=room, clock=ManualClock())
        return first_version(self.view, loader, self.commands, "tiny", older=older)

    def make(self, model: Path, card: EngineCard) -> Engine:
        self.made.append(card.version)
        self.before(card.version)
        return make(model, card)

    def say(self, kind: Kind, version: VersionId) -> None:
        self.commands = self.commands.after(
            Command(model="tiny", kind=kind, version=version, reason="drifts", by="ana", at_ms=1)
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "tiny")
    for name in ("v1", "v2"):
        made.store.publish(name)
    return made


def test_the_version_that_current_names_is_proved_and_nothing_else_is_loaded(bench: Bench) -> None:
    first = bench.start()
    assert (first.loaded.version, first.choice.rule) == (bench.store.version("v2"), Rule.CURRENT)
    assert (bench.made, first.passing) == (["v2"], frozenset())
    assert set(first.loads) == {Phase.CHECK, Phase.ROOM, Phase.LOAD, Phase.PROVE, Phase.WARM}


def test_commands_that_were_given_before_are_obeyed(bench: Bench) -> None:
    bench.say(Kind.PIN, bench.store.version("v1"))
    assert bench.start().choice.rule is Rule.PIN
    bench.say(Kind.QUARANTINE, bench.store.version("v1"))
    assert bench.start().loaded.version == bench.store.version("v2")
    assert bench.made == ["v1", "v2"]


def test_a_refused_one_is_passed_over_remembered_and_its_time_counts(bench: Bench) -> None:
    v3 = bench.store.publish("v3", spoil=truncated)
    first = bench.start()
    assert (first.loaded.version, first.choice.rule) == (bench.store.version("v2"), Rule.OLDER)
    assert list(bench.view.refused) == [v3]
    assert sum(first.loads[Phase.CHECK][0]) == 2
    assert any("v3" in note and "was refused: " in note for note in first.choice.notes)
    assert first.passing == frozenset()


def test_what_found_no_room_is_told_apart(bench: Bench) -> None:
    def tight(version: str) -> None:
        if version == "v2":
            raise NoRoomError("host memory: needs 9 MiB")

    bench.before = tight
    first = bench.start()
    assert first.passing == {bench.store.version("v2")}
    assert first.loaded.version == bench.store.version("v1")


def test_by_setting_no_older_one_serves_and_the_remedy_says_so(bench: Bench) -> None:
    bench.store.publish("v3", spoil=truncated)
    with pytest.raises(
        ContractError, match=r"engine\.model: no version in .* can serve \(CURRENT names v3\)"
    ) as raised:
        bench.start(older=False)
    message = str(raised.value)
    assert "version v3 (" in message
    assert "sha256 is" in message
    assert (
        f"version {bench.store.version('v2')} is older and may: set models.older_at_start, or publish again" in message
    )
    assert bench.made == []


def test_without_any_that_may_serve_each_is_told_with_its_reason(bench: Bench) -> None:
    bench.say(Kind.QUARANTINE, bench.store.version("v2"))
    truncated(bench.store.folder / "v1")
    (bench.store.folder / "v0").mkdir()
    for name in (CARD_NAME, MODEL_NAME):
        (bench.store.folder / "v0" / name).touch()
    with pytest.raises(ContractError) as raised:
        bench.start()
    message = str(raised.value)
    assert "folder v0: " in message
    assert "which is quarantined: drifts (by ana)" in message
    assert "publish a sound version, or release one: forecast-worker models list" in message


def test_an_unreadable_folder_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "tiny")
    bench.store.folder.rmdir()
    with pytest.raises(ContractError, match=r"CURRENT names none\)") as raised:
        bench.start()
    assert "can't be listed" in str(raised.value)


def test_an_error_after_which_no_engine_works_ends_the_start(bench: Bench) -> None:
    def lost(_: str) -> None:
        raise FatalEngineError("lost")

    bench.before = lost
    with pytest.raises(FatalEngineError):
        bench.start()


def test_bytes_that_were_replaced_while_they_were_loaded_are_not_refused_for_long(bench: Bench) -> None:
    def replaced(version: str) -> None:
        if version == "v2" and bench.made.count("v2") == 1:
            bench.store.publish("v2")
            raise ValueError("broken")

    bench.before = replaced
    bench.start()
    bench.view.look()
    assert bench.view.refused == {}
