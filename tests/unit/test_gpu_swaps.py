"""Versions with plans come and go on a simulated GPU: memory is asked for before, given back after, and each has its stand-by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.engine_card import CARD_NAME, load_card
from tests.helpers.gpu_swapping import GpuSwapping, with_plan
from tests.helpers.store import TestStore, with_card
from tests.helpers.swapping import Swapping
from worker.cuda import OUT_OF_MEMORY
from worker.errors import FatalEngineError
from worker.metrics import StatisticsCollector
from worker.proving import compute, golden_columns
from worker.statistics import Tallies
from worker.tensorrt_engine import TensorRtEngine

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1", spoil=with_plan(graph=1))
    return store


def ended(world: Swapping, gpu: GpuSwapping) -> None:
    """Nothing is left on the device, and every stand-by was closed once."""
    world.close()
    world.engines.clear()
    gpu.gpu.assert_empty()
    assert [standby.closings for standby in gpu.standbys] == [1] * len(gpu.standbys)


def test_each_version_brings_a_stand_by_of_its_own_and_takes_it_away(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    for number in range(2, 6):
        store.publish(f"v{number}", spoil=with_plan(graph=number))
        world.settle()
        serving = world.slot.serving
        standby = world.slot.standby_of(serving)
        assert isinstance(serving, TensorRtEngine)
        assert standby is not None
        assert (standby.spec.version, standby.spec.digest) == (f"v{number}", store.version(f"v{number}").digest)
        assert standby.spec.digest != serving.spec.digest
        assert [each.closings for each in gpu.standbys] == [1] * (number - 2) + [0, 0]  # the serving one and its backup
    ended(world, gpu)


def test_a_stand_by_computes_its_own_versions_graph(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    store.publish("v2", spoil=with_plan(graph=2, relative_tolerance=1.0), drift=1.5)
    world.settle()
    for engine, drift in ((world.slot.serving, 1.5), (world.slot.backup, 1.0)):
        assert engine is not None
        standby = world.slot.standby_of(engine)
        assert standby is not None
        card = load_card(store.folder / engine.spec.version / CARD_NAME)
        got = compute(standby, golden_columns(card), 2)
        np.testing.assert_allclose(got, np.asarray(card.golden.outputs), rtol=1e-5)
        assert got[0, 0, 0] == pytest.approx(drift * load_first(store))
    ended(world, gpu)


def load_first(store: TestStore) -> float:
    first = load_card(store.folder / "v1" / CARD_NAME).golden.outputs[0]
    value: Any = first
    while isinstance(value, list):
        value = value[0]
    return float(value)


def test_without_a_stand_by_by_setting_there_is_none(store: TestStore) -> None:
    gpu = GpuSwapping(store, "engine.standby=off")
    world = Swapping(store, gpu=gpu)
    assert world.slot.standby_of(world.slot.serving) is None
    ended(world, gpu)


def test_a_stand_by_that_is_not_what_the_card_says_refuses_its_version(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    used = gpu.gpu.fake.used_bytes

    def other_golden(folder: Path) -> None:
        with_plan(graph=2, relative_tolerance=1e3)(folder)  # too tolerant to see it
        golden = load_card(folder / CARD_NAME).golden
        shifted = [[[value + 1 for value in day] for day in row] for row in golden.outputs]
        with_card(golden=golden.model_copy(update={"outputs": shifted}))(folder)

    v2 = store.publish("v2", spoil=other_golden)
    world.settle()
    assert world.serving == "v1"
    assert "its stand-by: golden batch: row 0" in world.status.refused[v2]
    assert gpu.gpu.fake.used_bytes == used
    ended(world, gpu)


def test_a_version_that_states_more_memory_than_is_free_is_refused_with_the_figures(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    v2 = store.publish("v2", spoil=with_plan(graph=2, device_memory_bytes=100 * MIB))
    world.settle()
    assert world.serving == "v1"
    assert "device memory: needs 100 MiB, free are 16 MiB" in world.status.refused[v2]
    gpu.gpu.fake.total_bytes = 200 * MIB
    world.clock.advance(61.0)
    world.settle()
    assert world.serving == "v2"
    ended(world, gpu)


def test_what_must_stay_free_stays_free(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu, headroom_bytes=10 * MIB)
    v2 = store.publish("v2", spoil=with_plan(graph=2, device_memory_bytes=8 * MIB))
    world.settle()
    assert "device memory: needs 8 MiB, free are 16 MiB, and 10 MiB must stay free" in world.status.refused[v2]
    ended(world, gpu)


def test_memory_that_runs_out_while_a_version_is_loaded_refuses_it_for_a_while(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    used = gpu.gpu.fake.used_bytes
    gpu.gpu.api.fail(OUT_OF_MEMORY, name="cudaMalloc")
    v2 = store.publish("v2", spoil=with_plan(graph=2))
    world.settle()
    assert "MiB of device memory can't be had" in world.status.refused[v2]
    assert gpu.gpu.fake.used_bytes == used
    world.clock.advance(61.0)
    world.settle()
    assert world.serving == "v2"
    ended(world, gpu)


def test_device_memory_is_told_and_exported_and_flat_over_many_swaps(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    seen = []
    for number in range(2, 12):
        store.publish(f"v{number}", spoil=with_plan(graph=1))
        world.settle()
        assert world.status.device is not None
        seen.append(world.status.device.used_bytes)
    assert len(set(seen)) == 1
    tallies = Tallies()
    tallies.models(world.status)
    families = StatisticsCollector(lambda: tallies.snapshot(0.0), lambda: 0.0).collect()
    (memory,) = [family for family in families if family.name == "forecast_worker_device_memory_bytes"]
    fake = gpu.gpu.fake
    assert {sample.labels["state"]: sample.value for sample in memory.samples} == {
        "used": fake.used_bytes,
        "free": fake.total_bytes - fake.used_bytes,
    }
    ended(world, gpu)


def test_a_worker_without_plans_never_touches_a_device(tmp_path: Path) -> None:
    store = TestStore(tmp_path / "tiny")
    store.publish("v1")
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    store.publish("v2")
    world.settle()
    assert (world.serving, world.status.device, gpu.gpu.api.calls, gpu.standbys) == ("v2", None, [], [])
    ended(world, gpu)


def test_nor_does_one_that_is_told_to_stay_on_the_cpu(store: TestStore) -> None:
    gpu = GpuSwapping(store, "engine.runtime=onnx")
    world = Swapping(store, gpu=gpu)
    assert (world.status.device, gpu.gpu.api.calls) == (None, [])
    ended(world, gpu)


def test_a_lost_device_ends_it(store: TestStore) -> None:
    gpu = GpuSwapping(store)
    world = Swapping(store, gpu=gpu)
    gpu.gpu.api.fail(700, name="cudaMemGetInfo")
    with pytest.raises(FatalEngineError):
        world.load()
