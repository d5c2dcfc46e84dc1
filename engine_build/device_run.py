"""Runs a plan on the GPU for proving and measuring: plain and blocking, nothing that a worker would use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from engine_build.device import checked, free_bytes
from engine_build.errors import PlanError
from engine_build.prove import FloatArray
from engine_build.trt import Library
from engine_build.trt_types import Shape
from schemas.engine_card import Profile


class DeviceRunner:
    """One engine, one context, one stream, and some sets of buffers for the largest batch. A context manager.

    Args:
        library: that loads the plan.
        cuda: cuda-python's runtime module.
        plan: whose digest is known to be right.
        profile: the first of the plan's.
        sets: of input and output buffers, used in turn, so that no cache holds them all.
    """

    def __init__(self, library: Library, cuda: Any, plan: bytes, profile: Profile, *, sets: int = 4) -> None:  # noqa: ANN401
        self._cuda = cuda
        self._max_rows = profile.max_rows
        self._engine: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._inputs: dict[str, Shape] = {}
        self._outputs: dict[str, Shape] = {}
        self._sets: list[dict[str, int]] = [{} for _ in range(sets)]
        try:
            self.device_memory_bytes = self._load(library, plan)
        except BaseException:
            self.close()
            raise

    def _load(self, library: Library, plan: bytes) -> int:
        """Load the plan and allocate; returns the device memory that the plan itself took."""
        cuda = self._cuda
        before_bytes = free_bytes(cuda)
        self._engine = library.load(plan)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise PlanError("the plan's context can't be made; the device's memory may not suffice: free the GPU")
        taken_bytes = max(before_bytes - free_bytes(cuda), 0)
        facts = library.engine_tensors(self._engine)
        self._inputs = {each.name: each.shape for each in facts if each.is_input}
        self._outputs = {each.name: each.shape for each in facts if not each.is_input}
        self._stream = checked(cuda.cudaStreamCreate())
        for buffers in self._sets:
            for name, shape in (self._inputs | self._outputs).items():
                buffers[name] = int(checked(cuda.cudaMalloc(4 * _count(shape, self._max_rows))))
        return taken_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        """See `prove.Runner.run`."""
        rows = len(next(iter(inputs.values())))
        self.fill(0, inputs)
        self._point(0, rows)
        self._enqueue(rows)
        checked(self._cuda.cudaStreamSynchronize(self._stream))
        ((name, shape),) = self._outputs.items()
        found = np.empty(_at(shape, rows), np.float32)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(self._cuda.cudaMemcpy(found.ctypes.data, self._sets[0][name], found.nbytes, kind))
        return found

    def fill(self, index: int, inputs: Mapping[str, FloatArray]) -> None:
        """Copy `inputs` into buffer set `index`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        for name in self._inputs:
            values = np.ascontiguousarray(inputs[name], np.float32)
            checked(self._cuda.cudaMemcpy(self._sets[index][name], values.ctypes.data, values.nbytes, kind))

    def latencies_s(self, rows: int, repeats: int) -> Sequence[float]:
        """Seconds of single passes between two CUDA events, inputs on the device, buffer sets in turn."""
        return [self._between(rows, 1, first=turn) for turn in range(repeats)]

    def back_to_back_s(self, rows: int, passes: int) -> float:
        """Seconds for `passes` passes enqueued one after the other, without waiting in between."""
        return self._between(rows, passes, first=0)

    @property
    def sets(self) -> int:
        """How many buffer sets there are."""
        return len(self._sets)

    def close(self) -> None:
        """Give everything back. May be called again."""
        for buffers in self._sets:
            while buffers:
                checked(self._cuda.cudaFree(buffers.popitem()[1]))
        self._context = None
        self._engine = None  # after its context
        if self._stream is not None:
            stream, self._stream = self._stream, None
            checked(self._cuda.cudaStreamDestroy(stream))

    def _between(self, rows: int, passes: int, *, first: int) -> float:
        cuda = self._cuda
        start, end = (checked(cuda.cudaEventCreate()) for _ in range(2))
        try:
            self._point(first % len(self._sets), rows)
            checked(cuda.cudaEventRecord(start, self._stream))
            for turn in range(passes):
                if turn:
                    self._point((first + turn) % len(self._sets), rows)
                self._enqueue(rows)
            checked(cuda.cudaEventRecord(end, self._stream))
            checked(cuda.cudaEventSynchronize(end))
            return float(checked(cuda.cudaEventElapsedTime(start, end))) / 1000.0
        finally:
            for event in (start, end):
                checked(cuda.cudaEventDestroy(event))

    def _point(self, index: int, rows: int) -> None:
        for name, address in self._sets[index].items():
            self._context.set_tensor_address(name, address)
        for name, shape in self._inputs.items():
            if not self._context.set_input_shape(name, _at(shape, rows)):
                raise PlanError(f"{name}: the plan refuses {rows} rows; its profile ends at {self._max_rows}")

    def _enqueue(self, rows: int) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise PlanError(f"TensorRT refused a batch of {rows} rows; its log says why")


def _at(shape: Shape, rows: int) -> tuple[int, ...]:
    return tuple(rows if size is None else size for size in shape)


def _count(shape: Shape, rows: int) -> int:
    return int(np.prod(_at(shape, rows)))
