"""What the composition root loads is proved before anything is asked of a broker, whatever named it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import worker.__main__ as command_line
from demo.worker_process import toml
from schemas.engine_card import CARD_NAME, load_card, write_card
from tests.helpers.commands import call_command
from tests.helpers.gpu_engines import FakeGpu
from tests.helpers.gpu_swapping import SCHEMA, settings_for, with_plan
from tests.helpers.models import tiny_model
from tests.helpers.store import TestStore, with_card
from tests.helpers.swapping import CountedEngine
from worker import compose, compose_models, plan_loading
from worker.compose import engines_of, load_engine, load_engines, standby_of
from worker.compose_wire import contracts
from worker.errors import ContractError
from worker.plan_loading import Machine
from worker.settings import Settings
from worker.tensorrt_engine import TensorRtEngine

ONE_ROW = "doesn't do what its card says: batch of 1 rows: row 0, day 0, quantile 0: got "


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[CountedEngine]:
    """Every engine that is loaded without a plan."""
    engines: list[CountedEngine] = []

    class Noted(CountedEngine):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            engines.append(self)

    monkeypatch.setattr("worker.plan_loading.OnnxEngine", Noted)
    return engines


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The machine's."""
    fake = FakeGpu()
    machine = Machine(cuda=lambda: fake.cuda, library=lambda _: fake.device.library, run=lambda _: (1, "no builder"))
    for module in (plan_loading, compose_models):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    return fake


def closings(engines: list[CountedEngine]) -> dict[str, int]:
    return {engine.spec.version: engine.closings for engine in engines}


# -- a single model ---------------------------------------------------------------------------------------------------


def test_a_model_that_gets_one_row_alone_wrong_is_refused_and_closed(
    tmp_path: Path, loaded: list[CountedEngine]
) -> None:
    folder = tiny_model(tmp_path / "model", wrong_alone=True)
    with pytest.raises(ContractError) as raised:
        load_engine(settings_for(folder), SCHEMA)
    message = str(raised.value)
    assert message.startswith(f"engine.model: tiny 1, its ONNX file, {ONE_ROW}")
    assert message.endswith("; publish the model anew, together with its card")
    assert (raised.value.exit_code, closings(loaded)) == (2, {"1": 1})


def test_a_plan_that_gets_one_row_alone_wrong_is_refused_and_its_onnx_file_serves(tmp_path: Path, gpu: FakeGpu) -> None:
    folder = tiny_model(tmp_path / "model")
    with_plan()(folder)
    gpu.tensorrt.wrong_alone = True
    with pytest.raises(ContractError) as raised:
        load_engine(settings_for(folder), SCHEMA)
    message = str(raised.value)
    assert message.startswith(f"engine.model: tiny 1, plans/fake.plan, {ONE_ROW}")
    assert message.endswith('; build the plan anew with `engine-build build`, or set engine.runtime to "onnx"')
    gpu.assert_empty()
    load_engine(settings_for(folder, "engine.runtime=onnx"), SCHEMA).close()


def test_a_sound_plan_has_run_every_size_in_every_slot_before_its_first_batch(tmp_path: Path, gpu: FakeGpu) -> None:
    folder = tiny_model(tmp_path / "model")
    with_plan()(folder)
    engine = load_engine(settings_for(folder, "engine.slots=3"), SCHEMA)
    assert isinstance(engine, TensorRtEngine)
    proofs = [len(columns["sales"]) for columns in gpu.tensorrt.executed][-13:]
    assert proofs == [2] + 3 * [1] + 3 * [4] + 3 * [7] + 3 * [
        8
    ]  # of full batches there is a graph, up to 7 rows there isn't
    engine.close()
    gpu.assert_empty()


def test_a_plan_within_its_own_tolerances_is_right_although_the_onnx_file_may_not_differ_so_much(
    tmp_path: Path, gpu: FakeGpu
) -> None:
    folder = tiny_model(tmp_path / "model")
    with_plan(absolute_tolerance=1.5)(folder)
    gpu.tensorrt.wrong_alone = True
    load_engine(settings_for(folder), SCHEMA).close()
    gpu.assert_empty()


def test_the_latency_budget_counts_where_somebody_waits_for_the_forecasts(
    tmp_path: Path, loaded: list[CountedEngine]
) -> None:
    folder = tiny_model(tmp_path / "model")
    with_card(latency_budget_ms=1e-6)(folder)
    with pytest.raises(ContractError, match=r"engine\.model: .*: latency: 8 rows took .*; lower batching\.max_rows"):
        load_engine(settings_for(folder), SCHEMA)
    assert closings(loaded) == {"1": 1}
    load_engine(settings_for(folder), SCHEMA, live=False).close()


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_command_ends_with_the_message_before_anything_is_asked_of_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    folder = tiny_model(tmp_path / "model", wrong_alone=True)
    for module in (command_line, compose):
        monkeypatch.setattr(module, "Cluster", lambda *_: pytest.fail("the broker was asked"))
    config = tmp_path / "worker.toml"
    tables: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap.servers": "127.0.0.1:1"},
        "engine": {"model": str(folder)},
        "batching": {"max_rows": 8},
        "delivery": {"guarantee": "at_least_once"},
    }
    config.write_text(toml(tables))
    ended = call_command(command, "--config", str(config))
    assert ended.code == 2
    assert ended.message.startswith(f"forecast-worker: engine.model: tiny 1, its ONNX file, {ONE_ROW}")


# -- what stands behind it --------------------------------------------------------------------------------------------


def backed(tmp_path: Path, model: Path) -> Settings:
    """Settings with a backup that gets one row alone wrong."""
    backup = tiny_model(tmp_path / "backup", version="old", wrong_alone=True)
    return settings_for(model, f"engine.backup={backup}", "models.watch=off")


def test_a_backup_that_gets_one_row_alone_wrong_is_refused_and_all_is_closed(
    tmp_path: Path, loaded: list[CountedEngine]
) -> None:
    with pytest.raises(ContractError, match=f"engine.backup: tiny old, its ONNX file, {ONE_ROW}"):
        load_engines(backed(tmp_path, tiny_model(tmp_path / "model")), SCHEMA)
    assert closings(loaded) == {"1": 1, "old": 1}


def test_check_looks_at_the_backup_too_before_it_asks_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[CountedEngine]
) -> None:
    monkeypatch.setattr(command_line, "Cluster", lambda *_: pytest.fail("the broker was asked"))
    backup = tiny_model(tmp_path / "backup", version="old", wrong_alone=True)
    config = tmp_path / "worker.toml"
    config.write_text(
        toml(
            {
                "kafka": {"bootstrap.servers": "127.0.0.1:1"},
                "engine": {"model": str(tiny_model(tmp_path / "model")), "backup": str(backup)},
                "batching": {"max_rows": 8},
                "delivery": {"guarantee": "at_least_once"},
            }
        )
    )
    ended = call_command("check", "--config", str(config))
    assert ended.code == 2
    assert ended.message.startswith(f"forecast-worker: engine.backup: tiny old, its ONNX file, {ONE_ROW}")
    assert closings(loaded) == {"1": 1, "old": 1}


def test_so_is_the_backup_of_a_store(tmp_path: Path, loaded: list[CountedEngine]) -> None:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1")
    with (
        pytest.raises(ContractError, match=f"engine.backup: tiny old, its ONNX file, {ONE_ROW}"),
        engines_of(backed(tmp_path, store.folder), SCHEMA, lambda _: None),
    ):
        pass
    assert closings(loaded) == {"v1": 1, "old": 1}


def test_a_stand_by_that_computes_something_else_is_refused_and_closed(
    tmp_path: Path, gpu: FakeGpu, loaded: list[CountedEngine]
) -> None:
    """The plan is right, the ONNX file isn't."""
    folder = tiny_model(tmp_path / "model", drift=1.01)
    with_plan()(folder)
    golden = load_card(tiny_model(tmp_path / "sound") / CARD_NAME).golden
    write_card(load_card(folder / CARD_NAME).model_copy(update={"golden": golden}), folder / CARD_NAME)
    settings = settings_for(folder)
    engines = load_engines(settings, SCHEMA)
    with (
        ExitStack() as cleanup,
        pytest.raises(ContractError, match=r"engine\.standby: tiny 1, .*: golden batch: row 0"),
    ):
        standby_of(settings, contracts(settings), engines, cleanup)
    engines.close()
    assert closings(loaded) == {"1": 1}
    gpu.assert_empty()


def test_a_version_of_a_store_is_proved_once(tmp_path: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1", spoil=with_plan())
    for proof in ("prove", "prove_sizes", "warm"):
        monkeypatch.setattr(compose, proof, lambda *_: pytest.fail("the loader has proved it"))
    with engines_of(settings_for(store.folder, "models.watch=off"), SCHEMA, lambda _: None) as engines:
        assert isinstance(engines.serving, TensorRtEngine)
    golden = [columns for columns in gpu.tensorrt.executed if len(columns["sales"]) == 2]
    assert len(golden) == 1
    gpu.assert_empty()
