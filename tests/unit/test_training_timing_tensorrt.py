"""The timing of TensorRT against doubles of its API and of CUDA's: memory is the host's, a pass doubles the sales."""
# ruff: noqa: N802, N815 - the doubles have the names of what they stand for

from __future__ import annotations

import ctypes
import enum
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demo.training import timing_tensorrt

WIDTHS = {"sales": (30,), "as_of": (), "forecast": (14, 3)}


class Types(enum.Enum):
    FLOAT = enum.auto()
    HALF = enum.auto()
    INT8 = enum.auto()
    BOOL = enum.auto()


class Layers(enum.Enum):
    CONSTANT = enum.auto()
    SHAPE = enum.auto()
    QUANTIZE = enum.auto()
    DEQUANTIZE = enum.auto()
    ELEMENTWISE = enum.auto()


class Mode(enum.Enum):
    INPUT = enum.auto()
    OUTPUT = enum.auto()


TRT = SimpleNamespace(float32=Types.FLOAT, LayerType=Layers, TensorIOMode=Mode)


class Layer:
    """What `bind_to_fp32` touches of TensorRT's `ILayer`."""

    def __init__(self, name: str, kind: Layers, *outputs: Types) -> None:
        self.name, self.type, self.num_outputs = name, kind, len(outputs)
        self.precision: Types | None = None
        self.output_types: dict[int, Types] = {}
        self._outputs = outputs

    def get_output(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(dtype=self._outputs[index])

    def set_output_type(self, index: int, kind: Types) -> None:
        self.output_types[index] = kind


class Cuda:
    """CUDA's runtime on host memory. An event holds the number of the call that recorded it; a millisecond lies between two."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDeviceToHost=2, cudaMemcpyHostToDevice=1)

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.handles: set[int] = set()
        self.recorded: dict[int, int] = {}
        self.copies: list[int] = []

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.blocks[address]
        return (0,)

    def cudaMemcpy(self, target: int, source: int, size: int, kind: int) -> tuple[int]:
        device = target if kind == 1 else source
        assert size <= len(self.blocks[device])
        ctypes.memmove(target, source, size)
        self.copies.append(kind)
        return (0,)

    def cudaStreamCreate(self) -> tuple[int, int]:
        return self._handle()

    cudaEventCreate = cudaStreamCreate

    def cudaEventDestroy(self, handle: int) -> tuple[int]:
        self.handles.remove(handle)
        return (0,)

    cudaStreamDestroy = cudaEventDestroy

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        assert {event, stream} <= self.handles
        self.recorded[event] = len(self.recorded) + max(self.recorded.values(), default=0)
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        return (0 if event in self.recorded else 1,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        return 0, float(self.recorded[end] > self.recorded[start])

    def _handle(self) -> tuple[int, int]:
        self.handles.add(handle := len(self.handles) + 1)
        return 0, handle


class Engine:
    """Forecast of each day and quantile: twice the first day's sales. Refuses more rows than `most`."""

    num_io_tensors = len(WIDTHS)

    def __init__(self, most: int = 8192) -> None:
        self.most, self.addresses, self.shapes = most, dict[str, int](), dict[str, tuple[int, ...]]()

    def create_execution_context(self) -> Engine:
        return self

    def get_tensor_name(self, index: int) -> str:
        return list(WIDTHS)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *WIDTHS[name])

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.OUTPUT if name == "forecast" else Mode.INPUT

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= self.most

    def execute_async_v3(self, _stream: int) -> bool:
        rows = self.shapes["sales"][0]
        sales = self._view("sales", (rows, 30))
        self._view("forecast", (rows, 14, 3))[:] = 2 * sales[:, :1, None]
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> Any:
        array = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.ctypeslib.as_array(array).reshape(shape)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    runtime = Cuda()
    monkeypatch.setattr(importlib, "import_module", {"cuda.bindings.runtime": runtime}.__getitem__)
    return runtime


def test_scaling_and_calendar_compute_and_keep_their_results_in_fp32() -> None:
    bound = Layer("/model/features/Floor", Layers.ELEMENTWISE, Types.FLOAT, Types.FLOAT)
    left = [
        Layer("/model/networks.0/MatMul", Layers.ELEMENTWISE, Types.FLOAT),
        Layer("/model/features/Greater", Layers.ELEMENTWISE, Types.BOOL),
        Layer("/model/features/Constant", Layers.CONSTANT, Types.FLOAT),
        Layer("/model/features/Concat_QuantizeLinear", Layers.QUANTIZE, Types.INT8),
        Layer("/model/features/Concat_DequantizeLinear", Layers.DEQUANTIZE, Types.FLOAT),
    ]
    layers = [*left, bound]
    timing_tensorrt.bind_to_fp32(TRT, SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__))
    assert (bound.precision, bound.output_types) == (Types.FLOAT, {0: Types.FLOAT, 1: Types.FLOAT})
    assert [(layer.precision, layer.output_types) for layer in left] == [(None, {})] * len(left)


def test_a_pass_is_timed_between_its_events_and_gives_all_memory_back(cuda: Cuda) -> None:
    run = timing_tensorrt.Pass(TRT, Engine())
    assert [run.median_ms(rows) for rows in (1, 64)] == [1.0, 1.0]
    assert len(cuda.blocks) == 4 * len(WIDTHS)
    run.close()
    assert not cuda.blocks
    assert not cuda.handles


def test_the_difference_is_that_of_all_forecasts_from_the_reference(cuda: Cuda, tmp_path: Path) -> None:
    sales = np.arange(1, 91, dtype=np.float32).reshape(3, 30)
    expected = np.repeat(2 * sales[:, :1, None], 14, axis=1).repeat(3, axis=2)
    golden = tmp_path / "golden.npz"
    np.savez(golden, sales=sales, as_of=np.zeros(3, np.float32), forecast=expected * np.float32(1.25))
    run = timing_tensorrt.Pass(TRT, Engine())
    assert run.difference(golden) == pytest.approx(0.2)
    assert run.difference(tmp_path / "none.npz") is None
    assert cuda.copies.count(cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost) == 1


@pytest.mark.usefixtures("cuda")
def test_more_rows_than_the_profile_has_are_refused() -> None:
    with pytest.raises(RuntimeError, match="TensorRT refused 64 rows of sales"):
        timing_tensorrt.Pass(TRT, Engine(most=63)).median_ms(64)
