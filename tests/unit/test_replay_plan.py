"""What a plan refuses, without a broker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from tests.helpers.clock import ManualClock
from tests.helpers.models import INPUTS, tiny_model
from tests.helpers.questions import Answers, Asked, place, refused
from tests.helpers.store import with_card
from tests.unit.test_replay_request import NOW_MS, given, settings
from worker import replay_compose, replay_plan
from worker.errors import ConfigurationError, ContractError, UnreachableError
from worker.replay_compose import assembled_part
from worker.replay_plan import Entry, Planner, read_book
from worker.replay_request import request_from
from worker.replay_span import Edges
from worker.settings import Settings

MODEL_INPUTS = dict(list(INPUTS.items())[:1])


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[int, Entry]:
    """What the broker keeps of the name. The input topic has two partitions of ten records; targets aren't there."""
    kept: dict[int, Entry] = {}
    edges = {partition: Edges(low=0, stable_end=10) for partition in range(2)}
    monkeypatch.setattr(replay_plan, "Cluster", lambda *_: None)
    monkeypatch.setattr(Planner, "_consumer", lambda *_: None)
    monkeypatch.setattr(replay_plan, "read_book", lambda *_: kept)
    monkeypatch.setattr(Planner, "_there", lambda _: range(2))
    monkeypatch.setattr(Planner, "_edges", lambda *_: edges)
    monkeypatch.setattr(Planner, "_check_retention", lambda *_: None)
    monkeypatch.setattr(Planner, "_check_targets", lambda *_: None)
    return kept


def planner(own: Settings) -> Planner:
    return Planner(own, request_from(given(), own, NOW_MS))


def local(model: Path, *more: str) -> Settings:
    return settings(f"engine.model={model}", "batching.max_rows=8", *more)


def test_a_name_goes_on_with_all_its_partitions_or_not_at_all(entries: dict[int, Entry], tmp_path: Path) -> None:
    made = planner(local(tiny_model(tmp_path)))
    plan = made.plan()
    assert (plan.resumed, sorted(plan.pages)) == (False, [0, 1])
    entries.update({p: Entry(offset=3, page=page) for p, page in plan.pages.items()})
    assert made.plan().resumed
    del entries[1]
    with pytest.raises(ConfigurationError, match="--name n: got progress of the partitions 0, expected 0-1"):
        made.plan()


def test_a_backup_that_does_not_fit_is_refused_before_anything_is_written(
    entries: dict[int, Entry], tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "model", inputs=MODEL_INPUTS)
    backup = tiny_model(tmp_path / "backup")
    made = planner(local(model, f"engine.backup={backup}"))
    with pytest.raises(ContractError, match=r"engine\.backup: .* its inputs must be among the model's"):
        made.plan()
    assert not entries


@pytest.mark.parametrize("wrong", ["model", "backup"])
def test_an_engine_that_gets_one_row_alone_wrong_is_refused_before_anything_is_written(
    entries: dict[int, Entry], tmp_path: Path, wrong: str
) -> None:
    paths = {name: tiny_model(tmp_path / name, wrong_alone=name == wrong) for name in ("model", "backup")}
    made = planner(local(paths["model"], f"engine.backup={paths['backup']}"))
    with pytest.raises(
        ContractError, match=rf"engine\.{wrong}: tiny 1, its ONNX file, .*: batch of 1 rows: row 0, day 0"
    ):
        made.plan()
    assert not entries


def test_so_it_is_by_each_process_of_the_replay(
    entries: dict[int, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = local(tiny_model(tmp_path / "model"))
    plan = replace(planner(own).plan(), model=tiny_model(tmp_path / "replaced", wrong_alone=True))
    monkeypatch.setattr(replay_compose, "Cluster", lambda *_: pytest.fail("the broker was asked"))
    with (
        pytest.raises(ContractError, match=r"engine\.model: tiny 1, its ONNX file, .*: batch of 1 rows: row 0, day 0"),
        assembled_part(own, plan, 0),
    ):
        pass
    assert not entries


def test_nobody_waits_for_a_replay_so_its_engine_may_be_slow(entries: dict[int, Entry], tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with_card(latency_budget_ms=1e-6)(model)
    assert not planner(local(model)).plan().resumed
    assert not entries


# -- the book ---------------------------------------------------------------------------------------------------------


def book(*answers: object) -> Mapping[int, Entry]:
    clock = ManualClock()
    client: Any = Asked(committed=Answers(*answers))
    return read_book(client, "t", [0, 1], clock=clock, pause=clock.advance)


def test_a_coordinator_that_moves_is_asked_again_for_the_book() -> None:
    moving = KafkaError.NOT_COORDINATOR
    assert (
        book(refused(moving), [place(0, -1001, error=moving), place(1, -1001)], [place(0, -1001), place(1, -1001)])
        == {}
    )


def test_a_book_that_nobody_can_read_is_said_with_the_remedy() -> None:
    with pytest.raises(
        UnreachableError, match="asking for the replay's progress: reason 15; is the group's coordinator up"
    ):
        book(refused(KafkaError.COORDINATOR_NOT_AVAILABLE))
