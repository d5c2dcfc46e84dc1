"""The fakes of CUDA and TensorRT notice what they are there to notice. A check that never fails would be none."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_cuda_parts import Error, MisuseError
from tests.helpers.simulated_tensorrt import FakeTensorRt, Logger, Strategy, fake_plan

UP = FakeCuda.cudaMemcpyKind.cudaMemcpyHostToDevice
DOWN = FakeCuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
MODE = FakeCuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
SIZE = 64


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


def made(result: tuple[Any, ...]) -> int:
    status, handle = result
    assert status == Error.cudaSuccess
    return int(handle)


def stream_of(cuda: FakeCuda) -> int:
    return made(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))


def pinned(cuda: FakeCuda) -> tuple[int, NDArray[np.float32]]:
    address = made(cuda.cudaHostAlloc(SIZE, 0))
    view = np.frombuffer(memoryview((ctypes.c_ubyte * SIZE).from_address(address)).cast("B"), np.float32)
    return address, view


def test_memory_is_poisoned_when_made_and_when_freed(cuda: FakeCuda) -> None:
    address, view = pinned(cuda)
    assert np.isnan(view).all()
    view.fill(1.0)
    cuda.cudaFreeHost(address)
    assert np.isnan(view).all()
    assert np.isnan(cuda.floats(made(cuda.cudaMalloc(SIZE)), SIZE // 4)).all()


def test_a_copy_happens_when_somebody_waits_and_takes_what_is_there_then(cuda: FakeCuda) -> None:
    stream, device = stream_of(cuda), made(cuda.cudaMalloc(SIZE))
    address, view = pinned(cuda)
    view.fill(1.0)
    cuda.cudaMemcpyAsync(device, address, SIZE, UP, stream)
    assert np.isnan(cuda.floats(device, SIZE // 4)).all()
    view.fill(2.0)  # too early: the copy hasn't been made
    cuda.cudaStreamSynchronize(stream)
    assert (cuda.floats(device, SIZE // 4) == 2.0).all()


def test_results_arrive_only_after_a_wait(cuda: FakeCuda) -> None:
    stream, device, event = stream_of(cuda), made(cuda.cudaMalloc(SIZE)), made(cuda.cudaEventCreateWithFlags(3))
    address, view = pinned(cuda)
    cuda.floats(device, SIZE // 4)[:] = 5.0
    for _ in range(3):
        cuda.cudaMemcpyAsync(address, device, SIZE, DOWN, stream)
    cuda.cudaEventRecord(event, stream)
    assert [int(cuda.cudaEventQuery(event)[0]) for _ in range(4)] == [600, 600, 600, 0]
    assert (view == 5.0).all()


def test_an_event_is_done_when_it_was_recorded_last(cuda: FakeCuda) -> None:
    stream, event = stream_of(cuda), made(cuda.cudaEventCreateWithFlags(3))
    assert cuda.cudaEventQuery(event) == (0,)
    cuda.cudaEventRecord(event, stream)
    cuda.cudaEventSynchronize(event)
    cuda.cudaEventRecord(event, stream)
    cuda.cudaEventRecord(event, stream)
    assert cuda.cudaEventQuery(event) == (600,)
    cuda.cudaEventSynchronize(event)
    assert cuda.cudaEventQuery(event) == (0,)


def test_what_is_captured_runs_when_the_graph_is_launched_and_as_often(cuda: FakeCuda) -> None:
    stream, device = stream_of(cuda), made(cuda.cudaMalloc(SIZE))
    address, view = pinned(cuda)
    cuda.cudaStreamBeginCapture(stream, MODE)
    cuda.cudaMemcpyAsync(device, address, SIZE, UP, stream)
    graph = made(cuda.cudaStreamEndCapture(stream))
    executable = made(cuda.cudaGraphInstantiate(graph, 0))
    cuda.cudaGraphDestroy(graph)
    for value in (1.0, 2.0):
        view.fill(value)
        cuda.cudaGraphLaunch(executable, stream)
        cuda.cudaStreamSynchronize(stream)
        assert (cuda.floats(device, SIZE // 4) == value).all()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc", "cudaStreamSynchronize"])
def test_some_calls_spoil_a_capture(cuda: FakeCuda, call: str) -> None:
    stream = stream_of(cuda)
    cuda.cudaStreamBeginCapture(stream, MODE)
    arguments = {"cudaMalloc": (8,), "cudaHostAlloc": (8, 0), "cudaStreamSynchronize": (stream,)}[call]
    assert getattr(cuda, call)(*arguments)[0] == Error.cudaErrorStreamCaptureUnsupported
    assert cuda.cudaStreamEndCapture(stream)[0] == Error.cudaErrorStreamCaptureInvalidated


def test_too_much_device_memory_is_refused(cuda: FakeCuda) -> None:
    assert cuda.cudaMalloc(cuda.total_bytes + 1) == (Error.cudaErrorMemoryAllocation, None)
    address = made(cuda.cudaMalloc(cuda.total_bytes - 10))
    assert cuda.cudaMemGetInfo() == (0, 10, cuda.total_bytes)
    assert cuda.cudaMalloc(11)[0] == Error.cudaErrorMemoryAllocation
    cuda.cudaFree(address)
    assert cuda.cudaMemGetInfo() == (0, cuda.total_bytes, cuda.total_bytes)


def misuses(cuda: FakeCuda) -> dict[str, Any]:
    stream, device = stream_of(cuda), made(cuda.cudaMalloc(SIZE))
    address, _ = pinned(cuda)
    gone = made(cuda.cudaMalloc(SIZE))
    cuda.cudaFree(gone)
    own = np.zeros(SIZE, np.uint8).ctypes.data

    def freed_meanwhile() -> None:
        cuda.cudaMemcpyAsync(device, address, SIZE, UP, stream)
        cuda.device.pop(device)
        cuda.cudaStreamSynchronize(stream)

    return {
        "double free": lambda: cuda.cudaFree(gone),
        "free of nothing": lambda: cuda.cudaFreeHost(own),
        "use after free": lambda: cuda.cudaMemcpyAsync(gone, address, SIZE, UP, stream),
        "use after free, later": freed_meanwhile,
        "out of bounds": lambda: cuda.cudaMemcpyAsync(device, address, SIZE + 1, UP, stream),
        "before the start": lambda: cuda.cudaMemcpyAsync(device - 4, address, SIZE, UP, stream),
        "pageable memory": lambda: cuda.cudaMemcpyAsync(device, own, SIZE, UP, stream),
        "wrong direction": lambda: cuda.cudaMemcpyAsync(device, address, SIZE, DOWN, stream),
        "no stream": lambda: cuda.cudaStreamSynchronize(1),
        "no event": lambda: cuda.cudaEventQuery(1),
        "no graph": lambda: cuda.cudaGraphDestroy(1),
        "no executable": lambda: cuda.cudaGraphLaunch(1, stream),
    }


@pytest.mark.parametrize("what", misuses(FakeCuda()))
def test_misuse_raises_and_is_remembered(cuda: FakeCuda, what: str) -> None:
    with pytest.raises(MisuseError):
        misuses(cuda)[what]()
    with pytest.raises(AssertionError):
        cuda.assert_empty()
    assert len(cuda.misuses) == 1


@pytest.mark.parametrize("what", ["device", "pinned", "stream", "event"])
def test_what_is_left_is_told(cuda: FakeCuda, what: str) -> None:
    cuda.assert_empty()
    {
        "device": lambda: cuda.cudaMalloc(1),
        "pinned": lambda: cuda.cudaHostAlloc(1, 0),
        "stream": lambda: cuda.cudaStreamCreateWithFlags(1),
        "event": lambda: cuda.cudaEventCreateWithFlags(3),
    }[what]()
    with pytest.raises(AssertionError):
        cuda.assert_empty()


def test_writing_into_freed_page_locked_memory_is_told(cuda: FakeCuda) -> None:
    address, view = pinned(cuda)
    cuda.cudaFreeHost(address)
    cuda.assert_empty()
    view[0] = 1.0
    with pytest.raises(AssertionError, match="written after it was freed"):
        cuda.assert_empty()


def test_a_fault_hits_one_call_and_a_sticky_one_all_after_it(cuda: FakeCuda) -> None:
    api = FaultyCuda(cuda)
    api.fail(2, at=1)
    codes = [int(api.cudaMalloc(8)[0]) for _ in range(3)]
    assert codes == [0, 2, 0]
    assert len(cuda.device) == 2
    api.fail(701, name="cudaFree", argument=5)
    assert api.cudaMalloc(8)[0] == 0
    assert int(api.cudaFree(5)[0]) == 701
    api.fail(700, name="cudaMalloc")
    assert [int(api.cudaMalloc(8)[0]), int(api.cudaMemGetInfo()[0])] == [700, 700]
    assert api.calls[-2:] == ["cudaMalloc", "cudaMemGetInfo"]


class Quiet(Logger):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, severity: int, msg: str) -> None:
        self.lines.append(f"{int(severity)} {msg}")


@pytest.fixture
def context(cuda: FakeCuda) -> Any:
    """A modern context with room to work in, prepared for 2 rows."""
    module = FakeTensorRt(cuda, version="10.1", modern=True)
    plan = fake_plan({"sales": 2}, horizon=1, quantiles=(0.5,), profiles=[(1, 2, 4)], version="10.1")
    runtime = module.Runtime(Quiet())
    assert runtime is not None
    engine: Any = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context(Strategy.USER_MANAGED)
    context.set_device_memory(made(cuda.cudaMalloc(3000)), 3000)
    for name in ("sales", "forecast"):
        context.set_tensor_address(name, made(cuda.cudaMalloc(SIZE)))
    context.set_input_shape("sales", (2, 2))
    return context


def test_a_plan_takes_memory_until_the_last_reference_goes(cuda: FakeCuda, context: Any) -> None:
    used = cuda.used_bytes
    assert used > 5000
    engine = context._engine
    assert cuda.used_bytes == used
    assert engine.get_tensor_profile_shape("sales", 0) == [(1, 2), (2, 2), (4, 2)]


def test_shapes_outside_the_profile_are_refused(context: Any) -> None:
    assert context.set_input_shape("sales", (4, 2))
    assert not context.set_input_shape("sales", (5, 2))
    assert not context.set_input_shape("sales", (0, 2))
    assert not context.set_input_shape("sales", (4, 3))


def test_a_captured_context_that_was_changed_is_a_misuse(cuda: FakeCuda, context: Any) -> None:
    stream = stream_of(cuda)
    cuda.cudaStreamBeginCapture(stream, MODE)
    assert context.execute_async_v3(stream)
    executable = made(cuda.cudaGraphInstantiate(made(cuda.cudaStreamEndCapture(stream)), 0))
    cuda.floats(context._addresses["sales"], 4)[:] = (1.0, 2.0, 3.0, 4.0)
    cuda.cudaGraphLaunch(executable, stream)
    cuda.cudaStreamSynchronize(stream)
    assert cuda.floats(context._addresses["forecast"], 2).tolist() == [2.0, 4.0]
    context.set_input_shape("sales", (3, 2))
    cuda.cudaGraphLaunch(executable, stream)
    with pytest.raises(MisuseError, match="changed after the capture"):
        cuda.cudaStreamSynchronize(stream)


def test_a_context_that_goes_while_it_works_is_a_misuse(cuda: FakeCuda) -> None:
    module = FakeTensorRt(cuda)
    runtime = module.Runtime(Quiet())
    assert runtime is not None
    plan = fake_plan({"sales": 2}, horizon=1, quantiles=(0.5,), profiles=[(1, 2, 4)])
    engine: Any = runtime.deserialize_cuda_engine(plan)
    busy, stream = engine.create_execution_context_without_device_memory(), stream_of(cuda)
    for name in ("sales", "forecast"):
        busy.set_tensor_address(name, made(cuda.cudaMalloc(SIZE)))
    busy.set_input_shape("sales", (1, 2))
    busy.execute_async_v3(stream)
    del busy
    gc.collect()
    assert cuda.misuses == ["a context was destroyed while the GPU had work for it"]
    with pytest.raises(MisuseError, match="destroyed"):
        cuda.cudaStreamSynchronize(stream)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda plan: plan[:-5], "magic tag"),
        (lambda plan: plan[:50] + bytes([plan[50] ^ 4]) + plan[51:], "magic tag"),
        (lambda _: fake_plan({"a": 1}, horizon=1, quantiles=(0.5,), profiles=[(1, 1, 1)], version="8.5"), "version"),
        (lambda _: fake_plan({"a": 1}, horizon=1, quantiles=(0.5,), profiles=[(1, 1, 1)], capability="8.0"), "compute"),
    ],
)
def test_wrong_plans_are_refused_in_words(cuda: FakeCuda, spoil: Any, said: str) -> None:
    module, logger = FakeTensorRt(cuda), Quiet()
    runtime = module.Runtime(logger)
    assert runtime is not None
    plan = fake_plan({"sales": 2}, horizon=1, quantiles=(0.5,), profiles=[(1, 2, 4)])
    assert runtime.deserialize_cuda_engine(plan) is not None
    assert runtime.deserialize_cuda_engine(spoil(plan)) is None
    assert said in logger.lines[0]
    gc.collect()
    cuda.assert_empty()
