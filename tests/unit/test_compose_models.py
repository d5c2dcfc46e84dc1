"""What the composition root makes of a store: the real loader on a simulated GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.gpu_swapping import SCHEMA, GpuSwapping, with_plan
from tests.helpers.store import TestStore
from worker import compose_models
from worker.compose_models import watched_engines
from worker.errors import ContractError
from worker.onnx_engine import OnnxEngine
from worker.tensorrt_engine import TensorRtEngine

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    return TestStore(tmp_path / "tiny")


def on_gpu(store: TestStore, monkeypatch: pytest.MonkeyPatch, *settings: str) -> GpuSwapping:
    gpu = GpuSwapping(store, "models.watch=off", *settings)
    monkeypatch.setattr(compose_models, "this_machine", lambda: gpu.machine)
    return gpu


def test_a_version_with_a_plan_gets_its_stand_by_and_all_is_given_back(
    store: TestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    v1 = store.publish("v1", spoil=with_plan())
    gpu = on_gpu(store, monkeypatch)
    points: list[str] = []
    with watched_engines(gpu.settings, SCHEMA, lambda _: None, points.append) as engines:
        standby = engines.standby_of(engines.serving)
        assert isinstance(engines.serving, TensorRtEngine)
        assert isinstance(standby, OnnxEngine)
        assert standby.spec.digest == v1.digest
    assert points[:4] == ["model_checked", "model_loaded", "model_proven", "model_warm"]
    gpu.gpu.assert_empty()


def test_a_version_that_does_not_fit_on_the_device_is_refused_with_the_figures(
    store: TestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("v1", spoil=with_plan(device_memory_bytes=100 * MIB))
    gpu = on_gpu(store, monkeypatch)
    with (
        pytest.raises(ContractError, match="device memory: needs 100 MiB, free are 16 MiB, and 0 MiB must stay free"),
        watched_engines(gpu.settings, SCHEMA, lambda _: None, lambda _: None),
    ):
        pass
    gpu.gpu.assert_empty()


def test_of_two_plans_the_one_that_there_is_room_for_counts(store: TestStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card names the larger one first, which a fuller GPU can't take."""

    def two_plans(folder: Path) -> None:
        from schemas.engine_card import CARD_NAME, load_card, write_card  # noqa: PLC0415 - beside its only use

        with_plan()(folder)
        card = load_card(folder / CARD_NAME)
        (plan,) = card.plans
        larger = plan.model_copy(update={"file": "plans/larger.plan", "device_memory_bytes": 100 * MIB})
        write_card(card.model_copy(update={"plans": (larger, plan)}), folder / CARD_NAME)

    store.publish("v1", spoil=two_plans)
    gpu = on_gpu(store, monkeypatch)
    with watched_engines(gpu.settings, SCHEMA, lambda _: None, lambda _: None) as engines:
        assert isinstance(engines.serving, TensorRtEngine)
    gpu.gpu.assert_empty()


def test_a_worker_on_the_cpu_asks_no_gpu_and_needs_no_stand_by(
    store: TestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("v1")
    gpu = on_gpu(store, monkeypatch)
    with watched_engines(gpu.settings, SCHEMA, lambda _: None, lambda _: None) as engines:
        assert engines.standby_of(engines.serving) is None
    assert gpu.gpu.api.calls == []
