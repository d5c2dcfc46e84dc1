"""The adapter for TensorRT: what a plan says, how refusals are told, and the real library where no GPU is."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_tensorrt import FakeTensorRt, fake_plan
from worker.batch_shapes import RowRange
from worker.errors import EngineError, OutOfDeviceMemoryError
from worker.tensorrt_runtime import (
    Messages,
    PlanRefusedError,
    RuntimeMissingError,
    TensorRtLibrary,
    load_library,
)

PLAN = fake_plan({"sales": 30, "price": None}, horizon=3, quantiles=(0.1, 0.9), profiles=[(1, 2, 4), (5, 6, 8)])


@pytest.fixture(params=[False, True], ids=["8.6", "10"])
def module(request: pytest.FixtureRequest) -> FakeTensorRt:
    return FakeTensorRt(FakeCuda(), modern=request.param)


def test_says_what_is_in_a_plan(module: FakeTensorRt) -> None:
    plan = TensorRtLibrary(module, "tensorrt").load(PLAN)
    assert [str(tensor) for tensor in plan.tensors.inputs] == ["float32[batch, 30]", "float32[batch]"]
    assert [f"{tensor.name} {tensor}" for tensor in plan.tensors.outputs] == ["forecast float32[batch, 3, 2]"]
    assert plan.profiles == (RowRange(1, 2, 4), RowRange(5, 6, 8))
    assert plan.scratch_bytes == 3000
    plan.close()
    module.cuda.assert_empty()


def test_says_which_library_it_is(module: FakeTensorRt) -> None:
    assert str(TensorRtLibrary(module, "tensorrt").runtime) == "TensorRT 8.6.1"
    assert str(TensorRtLibrary(module, "tensorrt_rtx").runtime) == "TensorRT-RTX 8.6.1"


def test_a_refused_plan_is_told_in_the_librarys_words(module: FakeTensorRt) -> None:
    with pytest.raises(PlanRefusedError, match=r"TensorRT 8\.6\.1: loading the plan: .*magic tag"):
        TensorRtLibrary(module, "tensorrt").load(PLAN[:-1])


def test_a_plan_without_room_is_out_of_memory() -> None:
    with pytest.raises(OutOfDeviceMemoryError, match="weights needs 5000 bytes"):
        TensorRtLibrary(FakeTensorRt(FakeCuda(total_bytes=4000)), "tensorrt").load(PLAN)


@pytest.mark.parametrize("problem", [TypeError("factory returned nullptr"), RuntimeError("CUDA error 35")])
def test_a_runtime_that_can_not_be_made_is_an_engine_error(
    module: FakeTensorRt, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Any:
        raise problem

    monkeypatch.setattr(module, "Runtime", refuse)
    with pytest.raises(EngineError, match=f"making a runtime: {problem}"):
        TensorRtLibrary(module, "tensorrt").load(PLAN)


def test_old_messages_are_not_given_as_the_reason(module: FakeTensorRt) -> None:
    library = TensorRtLibrary(module, "tensorrt")
    with pytest.raises(PlanRefusedError, match="magic tag"):
        library.load(PLAN[:-1])
    module.refuse = len(module.calls)
    with pytest.raises(EngineError) as caught:
        library.load(PLAN)
    assert "magic" not in str(caught.value)


def test_messages_are_kept_once_each_and_not_for_ever() -> None:
    messages = Messages()
    for number in range(100):
        messages.add(f"line {number} ")
        messages.add("again")
    said = messages.take()
    assert said.count("again") == 1
    assert "line 99" in said
    assert "line 1;" not in said
    assert messages.take() == "TensorRT logged no reason"


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **others: Any) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.8: cannot open shared object file")
        return original(name, *arguments, **others)

    load_library.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RuntimeMissingError, match="tensorrt can't be loaded: libnvinfer"):
        load_library("tensorrt")


def test_the_real_library_says_why_it_can_not_load_a_plan_here() -> None:
    """TensorRT-RTX is a real library of the same family: logger, runtime and their refusals are tested on it."""
    pytest.importorskip("tensorrt_rtx")
    load_library.cache_clear()
    library = load_library("tensorrt_rtx")
    assert library is load_library("tensorrt_rtx")
    assert library.runtime.version.count(".") >= 2
    with pytest.raises(
        (PlanRefusedError, EngineError), match=r"TensorRT-RTX [\d.]+: (loading the plan|making a runtime): ."
    ):
        library.load(b"no plan" * 100)
