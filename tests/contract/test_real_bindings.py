"""The names that the code uses of TensorRT and CUDA, asked of the libraries that are installed here; skipped without them.

A stand-in that offers more than the real library would let the code pass its tests and fail on a GPU. Nothing here needs one.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.simulated_cuda import FakeCuda
from worker.cuda import Cuda, NoGpuError
from worker.errors import EngineError

# Offered by every TensorRT that the worker takes: class -> attributes. (engine_build's names: tests/unit/test_build_trt*.py.)
EVERYWHERE: dict[str, tuple[str, ...]] = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape", "get_tensor_dtype"),
        *("num_optimization_profiles", "get_tensor_profile_shape", "create_execution_context"),
    ),
    "IExecutionContext": (
        *("active_optimization_profile", "set_optimization_profile_async", "set_tensor_address", "set_input_shape"),
        "execute_async_v3",
    ),
    "ILogger": ("log", "Severity"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
}
# One of these at least, by version.
EITHER: dict[str, tuple[tuple[str, ...], ...]] = {
    "ICudaEngine": (("device_memory_size_v2", "device_memory_size"),),
    "IExecutionContext": (("set_device_memory", "device_memory"),),
}
# What 8.6 has instead of a strategy for contexts' memory.
OLD: dict[str, tuple[str, ...]] = {
    "PreviewFeature": ("PROFILE_SHARING_0806",),
    "ICudaEngine": ("create_execution_context_without_device_memory", "device_memory_size"),
    "IExecutionContext": ("device_memory",),
}
SIGNATURES: dict[str, dict[str, str]] = {
    "IBuilderConfig": {"set_timing_cache": "ignore_mismatch: bool"},
    "ICudaEngine": {"get_tensor_profile_shape": "name: str, profile_index: "},
    "IExecutionContext": {
        "set_tensor_address": "name: str, memory: ",
        "set_input_shape": "name: str, shape: ",
        "set_optimization_profile_async": "profile_index: ",
        "execute_async_v3": "stream_handle: ",
    },
}


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def trt(request: pytest.FixtureRequest) -> ModuleType:
    library: ModuleType = pytest.importorskip(request.param, exc_type=ImportError)
    return library


def test_tensorrt_has_every_name_that_is_used(trt: ModuleType) -> None:
    old = not hasattr(trt, "ExecutionContextAllocationStrategy")
    wanted = [(name, each) for name, attributes in EVERYWHERE.items() for each in attributes]
    wanted += [(name, each) for name, attributes in (OLD if old else {}).items() for each in attributes]
    assert [f"{name}.{each}" for name, each in wanted if not hasattr(getattr(trt, name), each)] == []
    for name, groups in EITHER.items():
        for group in groups:
            assert any(hasattr(getattr(trt, name), each) for each in group), f"{name} has none of {group}"


def test_tensorrt_takes_arguments_as_they_are_given(trt: ModuleType) -> None:
    for name, methods in SIGNATURES.items():
        for method, part in methods.items():
            told = getattr(getattr(trt, name), method, None)
            if told is not None:
                assert part in (told.__doc__ or ""), f"{name}.{method}: {(told.__doc__ or '').splitlines()[:1]}"


def test_a_logger_of_ours_is_one_of_theirs(trt: ModuleType) -> None:
    from engine_build.trt_log import Record, recorder  # noqa: PLC0415 - nothing to import without a library

    records: list[Record] = []
    logger = recorder(trt, records)
    assert isinstance(logger, trt.ILogger)
    logger.log(trt.ILogger.Severity.ERROR, "why")
    logger.log(trt.ILogger.Severity.INFO, "by the way")
    assert records == [Record(severity="ERROR", text="why")]


@pytest.fixture
def runtime() -> Any:
    return pytest.importorskip("cuda.bindings.runtime", exc_type=ImportError)


def test_cuda_has_every_call_that_the_simulated_one_has(runtime: Any) -> None:
    offered = [name for name in dir(FakeCuda) if name.startswith("cuda")]
    assert [name for name in offered if not hasattr(runtime, name)] == []
    properties = runtime.cudaDeviceProp()
    assert (properties.name, properties.major, properties.minor) == (b"", 0, 0)


def test_cuda_takes_arguments_as_they_are_given(runtime: Any) -> None:
    """Without a device every call is refused by its status; a call that was made wrongly would be a TypeError."""
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU: these addresses aren't its own")
    cuda = Cuda(runtime)
    for name, method in inspect.getmembers(cuda, inspect.ismethod):
        if not name.startswith("_"):
            numbers = [1 for each in inspect.signature(method).parameters.values() if each.default is each.empty]
            with pytest.raises((EngineError, NoGpuError)):
                method(*(["raising"] if name == "raise_pending" else numbers))
