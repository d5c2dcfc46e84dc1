from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.store import TestStore, truncated
from worker.bulletin import Bulletin
from worker.control import WorkerState
from worker.handover import Handover
from worker.model_status import DeviceMemory, Difference, Outcome, Phase
from worker.store_listing import StoreView
from worker.version_choice import Choice, Rule, VersionId
from worker.version_states import IllegalMoveError, State

CHOICE = Choice(target=None, backup=None, rule=Rule.CURRENT, notes=("a note",))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = TestStore(folder)
        self.v1, self.v2 = (self.store.publish(name) for name in ("v1", "v2"))
        self.view = StoreView(folder, "tiny")
        self.view.look()
        self.handover = Handover()
        self.told: list[WorkerState] = []
        self.bulletin = Bulletin("tiny", "w", self.handover, self.told.append)

    def publish(self, *, held: str | None = None, quarantined: dict[VersionId, str] | None = None) -> None:
        shadow = Difference(rows=1, wape=0.0, bias=0.0, width_ratio=1.0, latency_ratio=1.0)
        self.bulletin.publish(
            self.view,
            CHOICE,
            quarantined=quarantined or {},
            shadow=shadow,
            held=held,
            device=DeviceMemory(used_bytes=1, free_bytes=2),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "tiny")
    made.bulletin.starts_with(made.v1)
    return made


def test_the_first_version_was_proved_and_serves(bench: Bench) -> None:
    assert (bench.bulletin.state(bench.v1), bench.bulletin.state(bench.v2)) == (State.SERVING, None)


def test_only_edges_of_the_table_are_gone(bench: Bench) -> None:
    with pytest.raises(IllegalMoveError, match="from nowhere to serving"):
        bench.bulletin.move(bench.v2, State.SERVING)
    assert bench.bulletin.state(bench.v2) is None


def test_everything_is_shown_at_once_in_a_value_that_does_not_change(bench: Bench) -> None:
    bench.publish(quarantined={bench.v2: "drifts"})
    before = bench.handover.status
    assert (before.states, before.quarantined) == ({bench.v1: State.SERVING}, {bench.v2: "drifts"})
    assert (before.rule, before.notes) == (Rule.CURRENT, ("a note",))
    assert before.shadow is not None
    assert before.device == DeviceMemory(used_bytes=1, free_bytes=2)
    bench.bulletin.move(bench.v2, State.LOADING)
    assert bench.v2 not in before.states
    bench.publish()
    assert bench.handover.status.states[bench.v2] is State.LOADING
    assert before.quarantined == {bench.v2: "drifts"}


def test_a_folder_that_cannot_be_read_is_a_note(bench: Bench) -> None:
    bench.store.folder.rename(bench.store.folder.with_name("away"))
    bench.view.look()
    bench.publish()
    assert bench.handover.status.notes[0] == "a note"
    assert "can't be listed" in bench.handover.status.notes[1]


def test_outcomes_and_phases_are_counted(bench: Bench) -> None:
    for _ in range(2):
        bench.bulletin.count(Outcome.REFUSED)
    bench.bulletin.timed(Phase.LOAD, 1.0)
    assert bench.handover.status.outcomes[Outcome.REFUSED] == 2
    assert bench.handover.status.outcomes[Outcome.SERVED] == 0
    assert bench.handover.status.loads[Phase.LOAD][1] == 1.0


def test_what_is_neither_there_nor_in_memory_is_forgotten(bench: Bench) -> None:
    for state in (State.LOADING, State.REFUSED):
        bench.bulletin.move(bench.v2, state)
    bench.bulletin.forget({bench.v1, bench.v2})
    assert bench.bulletin.state(bench.v2) is State.REFUSED
    bench.bulletin.forget(())
    assert (bench.bulletin.state(bench.v2), bench.bulletin.state(bench.v1)) == (None, State.SERVING)


# -- for the fleet ----------------------------------------------------------------------------------------------------


def test_the_fleet_is_told_what_each_role_runs_and_only_when_it_changes(bench: Bench) -> None:
    bench.publish()
    bench.publish()
    assert len(bench.told) == 1
    for state in (State.LOADING, State.PROVEN, State.SHADOW):
        bench.bulletin.move(bench.v2, state)
    bench.publish()
    bench.bulletin.move(bench.v1, State.BACKUP)
    bench.bulletin.move(bench.v2, State.SERVING)
    bench.publish()
    assert [(told.serving.name, told.backup, told.shadow) for told in bench.told] == [
        ("v1", None, None),
        ("v1", None, "v2"),
        ("v2", "v1", None),
    ]
    assert {(told.model, told.worker, told.at_ms) for told in bench.told} == {("tiny", "w", 0)}


def test_the_fleet_is_told_of_a_hold_of_refusals_and_of_notes(bench: Bench) -> None:
    v3 = bench.store.publish("v3", spoil=truncated)
    bench.store.publish("v0", current=False)
    (bench.store.folder / "v0" / "card.json").write_text("{")
    bench.view.look()
    bench.view.refuse(v3, "truncated")
    bench.publish(held="v1 was quarantined")
    (told,) = bench.told
    assert (told.held, told.notes) == ("v1 was quarantined", ("a note",))
    assert set(told.refused) == {"v3", "v0"}
    assert told.refused["v3"] == "truncated"


def test_while_the_last_resort_serves_there_is_nothing_to_tell(bench: Bench) -> None:
    bench.bulletin.move(bench.v1, State.RETIRED)
    bench.publish()
    assert bench.told == []
