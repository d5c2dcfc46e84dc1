"""A stand-in for `cuda.bindings.runtime`: one GPU whose memory is counted. Passes take 1 ms each."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np


class Status(IntEnum):
    cudaSuccess = 0  # noqa: N815 - CUDA's names
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorLaunchFailure = 719  # noqa: N815


class FakeCuda:
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self, *, devices: int = 1, total_bytes: int = 1 << 30) -> None:
        self.devices = devices
        self.total_bytes = total_bytes
        self.memory: dict[int, Any] = {}
        self.handles = 0
        self.passes = 0

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802 - from here on
        return (Status.cudaSuccess, self.devices) if self.devices else (Status.cudaErrorLaunchFailure, 0)

    def cudaGetDeviceProperties(self, _: int) -> tuple[Any, ...]:  # noqa: N802
        return Status.cudaSuccess, SimpleNamespace(name=b"NVIDIA H200\0", major=9, minor=0)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:  # noqa: N802
        return Status.cudaSuccess, self.total_bytes - self.taken_bytes, self.total_bytes

    @property
    def taken_bytes(self) -> int:
        return sum(len(each) for each in self.memory.values())

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if self.taken_bytes + size > self.total_bytes:
            return Status.cudaErrorMemoryAllocation, 0
        buffer = (ctypes.c_char * size)()
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return Status.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMemcpy(self, target: int, source: int, size: int, _: int) -> tuple[Any, ...]:  # noqa: N802
        ctypes.memmove(target, source, size)
        return (Status.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:  # noqa: N802
        self.handles += 1
        return Status.cudaSuccess, 5

    def cudaEventCreate(self) -> tuple[Any, ...]:  # noqa: N802
        self.handles += 1
        return Status.cudaSuccess, SimpleNamespace(passes=0)

    def cudaEventRecord(self, event: Any, _: int) -> tuple[Any, ...]:  # noqa: N802
        event.passes = self.passes
        return (Status.cudaSuccess,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Any, ...]:  # noqa: N802
        return Status.cudaSuccess, float(end.passes - start.passes)

    def _done(self, *_: Any) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    cudaStreamSynchronize = cudaEventSynchronize = _done  # noqa: N815

    def _destroyed(self, _: Any) -> tuple[Any, ...]:
        self.handles -= 1
        return (Status.cudaSuccess,)

    cudaStreamDestroy = cudaEventDestroy = _destroyed  # noqa: N815


class FakeEngine:
    """sales[rows, 3] and price[rows] -> forecast[rows, 2, 2] = sales[:, 0] + price. Loading takes `weights_bytes`."""

    def __init__(self, cuda: FakeCuda, *, weights_bytes: int = 1000, context: bool = True) -> None:
        self.cuda = cuda
        self._context = context
        self._weights = cuda.cudaMalloc(weights_bytes)[1]

    def create_execution_context(self) -> FakeContext | None:
        return FakeContext(self.cuda) if self._context else None

    def __del__(self) -> None:
        self.cuda.cudaFree(self._weights)


class FakeContext:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.addresses: dict[str, int] = {}
        self.rows = 0

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, _: str, shape: tuple[int, ...]) -> bool:
        self.rows = shape[0]
        return self.rows <= 64

    def execute_async_v3(self, _: int) -> bool:
        self.cuda.passes += 1
        sales, price = self._array("sales", 3), self._array("price", 1)
        self._array("forecast", 4)[:] = sales[:, :1] + price
        return True

    def _array(self, name: str, width: int) -> Any:
        floats = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, (self.rows, width))
