"""Calls to CUDA: errors in one table, handles as integers, no GPU in words."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_cuda_parts import Error
from worker.cuda import Cuda, NoGpuError, load_cuda
from worker.errors import EngineError, FatalEngineError, OutOfDeviceMemoryError

CALLS: Mapping[str, Callable[[Cuda], object]] = {
    "cudaMemGetInfo": lambda cuda: cuda.memory(),
    "cudaMalloc": lambda cuda: cuda.allocate(8),
    "cudaFree": lambda cuda: cuda.free(8),
    "cudaHostAlloc": lambda cuda: cuda.allocate_pinned(8),
    "cudaFreeHost": lambda cuda: cuda.free_pinned(8),
    "cudaStreamCreateWithFlags": lambda cuda: cuda.create_stream(),
    "cudaStreamDestroy": lambda cuda: cuda.destroy_stream(8),
    "cudaStreamSynchronize": lambda cuda: cuda.synchronize(8),
    "cudaEventCreateWithFlags": lambda cuda: cuda.create_event(),
    "cudaEventDestroy": lambda cuda: cuda.destroy_event(8),
    "cudaEventRecord": lambda cuda: cuda.record(8, 9),
    "cudaEventQuery": lambda cuda: cuda.is_done(8),
    "cudaEventSynchronize": lambda cuda: cuda.wait_for(8),
    "cudaMemcpyAsync": lambda cuda: cuda.upload(8, 9, 1, 10),
    "cudaStreamBeginCapture": lambda cuda: cuda.begin_capture(8),
    "cudaStreamEndCapture": lambda cuda: cuda.end_capture(8),
    "cudaGraphInstantiate": lambda cuda: cuda.instantiate(8),
    "cudaGraphLaunch": lambda cuda: cuda.launch(8, 9),
    "cudaGraphDestroy": lambda cuda: cuda.destroy_graph(8),
    "cudaGraphExecDestroy": lambda cuda: cuda.destroy_executable(8),
}


@pytest.fixture
def api() -> FaultyCuda:
    return FaultyCuda(FakeCuda())


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_checked_and_says_which_it_was(api: FaultyCuda, name: str) -> None:
    api.fail(Error.cudaErrorInvalidValue, name=name)
    with pytest.raises(EngineError, match=rf"{name}: cudaErrorInvalidValue \(1\): invalidvalue") as caught:
        CALLS[name](Cuda(api))
    assert type(caught.value) is EngineError


@pytest.mark.parametrize("name", CALLS)
def test_a_sticky_error_is_fatal_in_every_call(api: FaultyCuda, name: str) -> None:
    api.fail(Error.cudaErrorIllegalAddress, name=name)
    with pytest.raises(FatalEngineError, match=r"GPU context is lost.*cudaErrorIllegalAddress.*restart the worker"):
        CALLS[name](Cuda(api))
    with pytest.raises(FatalEngineError):  # and so is every later one
        Cuda(api).memory()


def test_too_little_device_memory_says_how_much_is_free() -> None:
    cuda = Cuda(FakeCuda(total_bytes=4 << 20))
    cuda.allocate(1 << 20)
    with pytest.raises(OutOfDeviceMemoryError, match=r"3\.0 of 4\.0 MiB device memory are free"):
        cuda.allocate(8 << 20)


def test_too_little_page_locked_memory_is_not_the_gpus_fault(api: FaultyCuda) -> None:
    api.fail(Error.cudaErrorMemoryAllocation, name="cudaHostAlloc")
    with pytest.raises(EngineError, match=r"2\.0 MiB of page-locked host memory.*lower engine.slots") as caught:
        Cuda(api).allocate_pinned(2 << 20)
    assert not isinstance(caught.value, OutOfDeviceMemoryError)


def test_an_error_is_cleared_so_that_the_next_call_does_not_see_it() -> None:
    cleared = []

    class Recording(FaultyCuda):
        def cudaGetLastError(self) -> tuple[Any, ...]:  # noqa: N802 - CUDA's name
            cleared.append(True)
            return (Error.cudaSuccess,)

    faulty = Recording(FakeCuda())
    faulty.fail(Error.cudaErrorInvalidValue, name="cudaMalloc")
    with pytest.raises(EngineError):
        Cuda(faulty).allocate(8)
    assert cleared == [True]


def test_an_error_that_tensorrt_left_behind_is_raised_on_demand() -> None:
    class Failed(FakeCuda):
        def cudaGetLastError(self) -> tuple[Any, ...]:  # noqa: N802 - CUDA's name
            return (Error.cudaErrorLaunchFailure,)

    Cuda(FakeCuda()).raise_pending("running")
    with pytest.raises(FatalEngineError, match="running: cudaErrorLaunchFailure"):
        Cuda(Failed()).raise_pending("running")


def test_says_which_gpu_there_is() -> None:
    gpu = Cuda(FakeCuda(total_bytes=1000, capability=(8, 9))).gpu()
    assert (gpu.name, gpu.compute_capability, gpu.free_bytes) == ("Fake GPU", "8.9", 1000)


def test_no_gpu_is_a_configuration_error_with_a_remedy() -> None:
    fake = FakeCuda()
    fake.devices = 0
    with pytest.raises(NoGpuError, match=r"no usable GPU: .*cudaErrorNoDevice.*engine\.runtime"):
        Cuda(fake).gpu()


@pytest.mark.parametrize("problem", [ImportError("no module"), OSError("no libcuda"), RuntimeError("no driver")])
def test_a_missing_package_is_no_gpu(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **others: Any) -> Any:
        if name.startswith("cuda"):
            raise problem
        return original(name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(NoGpuError, match=f"cuda-python can't be loaded.*{problem}"):
        load_cuda()


def test_an_unfinished_event_is_no_error() -> None:
    fake = FakeCuda()
    cuda = Cuda(fake)
    stream, event = cuda.create_stream(), cuda.create_event()
    cuda.record(event, stream)
    cuda.record(event, stream)
    answers: Sequence[bool] = [cuda.is_done(event), cuda.is_done(event)]
    assert answers == [False, True]
