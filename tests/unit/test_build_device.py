from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_build.device import checked, find_gpu, runtime_api
from engine_build.device_run import DeviceRunner
from engine_build.errors import OutOfMemoryError, PlanError
from engine_build.trt_types import TensorFacts
from schemas.engine_card import Profile
from schemas.plan_choice import Gpu
from tests.helpers.fake_cuda import FakeCuda, FakeEngine, Status

PROFILE = Profile(min_rows=1, opt_rows=8, max_rows=64)
TENSORS = (
    TensorFacts(name="sales", dtype="float32", shape=(None, 3), is_input=True),
    TensorFacts(name="price", dtype="float32", shape=(None,), is_input=True),
    TensorFacts(name="forecast", dtype="float32", shape=(None, 2, 2), is_input=False),
)
INPUTS = {"sales": np.arange(6, dtype=np.float32).reshape(2, 3), "price": np.array([10.0, 20.0], np.float32)}


def library(cuda: FakeCuda, **options: Any) -> Any:
    def load(plan: bytes) -> FakeEngine:
        if plan != b"plan":
            raise PlanError("damaged")
        return FakeEngine(cuda, **options)

    return SimpleNamespace(load=load, engine_tensors=lambda _: TENSORS)


def test_the_gpu_is_found_with_its_facts() -> None:
    assert find_gpu(FakeCuda()) == Gpu(name="NVIDIA H200", compute_capability="9.0", free_bytes=1 << 30)
    assert find_gpu(FakeCuda(devices=0)) is None
    assert find_gpu(None) is None


def test_a_machine_without_cuda_python_or_gpu_has_none() -> None:
    assert find_gpu(runtime_api()) is None or runtime_api() is not None


def test_a_status_of_cuda_is_an_error_with_its_name() -> None:
    assert checked((Status.cudaSuccess, 7)) == 7
    assert checked((Status.cudaSuccess, 7, 8)) == (7, 8)
    with pytest.raises(PlanError, match="CUDA: cudaErrorLaunchFailure; see the driver's log"):
        checked((Status.cudaErrorLaunchFailure, 0))
    with pytest.raises(OutOfMemoryError, match="out of device memory"):
        checked((Status.cudaErrorMemoryAllocation, 0))


def test_a_plan_is_run_and_timed_and_all_memory_comes_back() -> None:
    cuda = FakeCuda()
    with DeviceRunner(library(cuda), cuda, b"plan", PROFILE, sets=3) as runner:
        assert runner.device_memory_bytes == 1000
        found = runner.run(INPUTS)
        assert found.shape == (2, 2, 2)
        assert found[:, 0, 0].tolist() == [10.0, 23.0]
        assert runner.latencies_s(2, 5) == [0.001] * 5
        assert runner.back_to_back_s(2, 50) == pytest.approx(0.05)
        with pytest.raises(PlanError, match="the plan refuses 65 rows"):
            runner.back_to_back_s(65, 1)
    runner.close()
    assert (cuda.taken_bytes, cuda.handles) == (0, 0)


@pytest.mark.parametrize("why", ["plan", "context", "memory"])
def test_a_load_that_fails_gives_its_memory_back(why: str) -> None:
    cuda = FakeCuda(total_bytes=2000 if why == "memory" else 1 << 20)
    with pytest.raises(PlanError):
        DeviceRunner(library(cuda, context=why != "context"), cuda, b"damaged" if why == "plan" else b"plan", PROFILE)
    assert (cuda.taken_bytes, cuda.handles) == (0, 0)
