"""CUDA's runtime without a GPU: what `cuda.bindings.runtime` offers to `worker.cuda`, on ordinary memory, lazily and strictly.

Lazily: work in a stream runs only while somebody asks an event or synchronises, a few steps at a time, and copies read and
write host memory at that moment. So whoever doesn't wait, or touches memory too early, gets wrong numbers.

Strictly: memory is counted, poisoned when made and when freed (NaN as float32), and never at an address twice. A double free, a
use after free, a copy out of bounds or of memory that isn't page-locked, and work in a destroyed context are a `MisuseError`,
and stand in `misuses` too, for the case that somebody catches it. `assert_empty` says what wasn't freed.
"""
# ruff: noqa: N802, N815 - the names are CUDA's

from __future__ import annotations

import itertools
from collections.abc import Sized
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.helpers.simulated_cuda_parts import (
    GAP,
    OK,
    POISON,
    Block,
    CaptureMode,
    Error,
    FakeEvent,
    FakeStream,
    MemcpyKind,
    MisuseError,
    Work,
)


class FakeCuda:
    """The module. `steps_per_query`: pieces of work done each time an event is asked."""

    cudaError_t = Error
    cudaMemcpyKind = MemcpyKind
    cudaStreamCaptureMode = CaptureMode
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaEventDisableTiming = 2
    cudaEventBlockingSync = 1

    def __init__(
        self, *, total_bytes: int = 1 << 24, capability: tuple[int, int] = (9, 0), steps_per_query: int = 1
    ) -> None:
        self.total_bytes = total_bytes
        self.capability = capability
        self.steps_per_query = steps_per_query
        self.devices = 1
        self.device: dict[int, Block] = {}
        self.pinned: dict[int, Block] = {}
        self.streams: dict[int, FakeStream] = {}
        self.events: dict[int, FakeEvent] = {}
        self.graphs: dict[int, list[tuple[object, Work]]] = {}
        self.executables: dict[int, list[tuple[object, Work]]] = {}
        self.freed: list[Block] = []
        self.misuses: list[str] = []
        self.log: list[str] = []
        """Frees and launches, in order."""
        self._handles = itertools.count(0x1000, 16)
        self._next_address = 1 << 40

    # what tests ask

    @property
    def used_bytes(self) -> int:
        return sum(len(block.data) for block in self.device.values())

    def assert_empty(self) -> None:
        """Everything was freed, nothing was misused, and nobody wrote into page-locked memory after it was freed."""
        assert not self.misuses, self.misuses
        assert self.left == 0, self._made
        assert all((block.data == POISON).all() for block in self.freed), "written after it was freed"

    @property
    def left(self) -> int:
        """How many things weren't freed."""
        return sum(len(things) for things in self._made.values())

    @property
    def _made(self) -> dict[str, Sized]:
        return {
            "device memory": self.device,
            "page-locked memory": self.pinned,
            "streams": self.streams,
            "events": self.events,
            "graphs": self.graphs,
            "executables": self.executables,
        }

    def lose(self) -> None:
        """The context is corrupt: nothing runs any more."""
        for stream in self.streams.values():
            stream.queue.clear()

    def misuse(self, text: str) -> MisuseError:
        self.misuses.append(text)
        return MisuseError(text)

    def run_all(self) -> None:
        for stream in self.streams.values():
            stream.run()

    # memory; also used by the fake TensorRT for what it allocates

    def take(self, size: int) -> int | None:
        """The address of new device memory, None if there is too little."""
        if size <= 0 or self.used_bytes + size > self.total_bytes:
            return None
        address = self._next_address
        self._next_address += -(-size // 256) * 256 + GAP
        self.device[address] = Block(address, np.full(size, POISON, np.uint8))
        return address

    def give_back(self, address: int) -> None:
        block = self.device.pop(address, None)
        if block is None:
            raise self.misuse(f"freed device memory at {address:#x} that isn't allocated")

    def floats(self, address: int, count: int) -> NDArray[np.float32]:
        """A view of device memory."""
        return self._bytes(self.device, address, 4 * count, "device").view(np.float32)

    def _bytes(self, blocks: dict[int, Block], address: int, size: int, what: str) -> NDArray[np.uint8]:
        for block in blocks.values():
            start = address - block.address
            if start >= 0 and start + size <= len(block.data):
                return block.data[start : start + size]
        raise self.misuse(f"{size} bytes at {address:#x} aren't within allocated {what} memory")

    def _capturing(self) -> bool:
        """True while a stream is captured: then this call isn't allowed, and spoils the capture."""
        found = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in found:
            stream.invalid = True
        return bool(found)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self._capturing():
            return Error.cudaErrorStreamCaptureUnsupported, None
        address = self.take(size)
        return (Error.cudaErrorMemoryAllocation, None) if address is None else (*OK, address)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        self.log.append("free device memory")
        self.run_all()
        self.give_back(address)
        return OK

    def cudaHostAlloc(self, size: int, _: int) -> tuple[Any, ...]:
        if self._capturing():
            return Error.cudaErrorStreamCaptureUnsupported, None
        data = np.full(size, POISON, np.uint8)
        self.pinned[data.ctypes.data] = Block(data.ctypes.data, data)
        return *OK, data.ctypes.data

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        self.log.append("free page-locked memory")
        self.run_all()
        block = self.pinned.pop(address, None)
        if block is None:
            raise self.misuse(f"freed page-locked memory at {address:#x} that isn't allocated")
        block.data.fill(POISON)
        self.freed.append(block)  # kept, so that views of it stay readable and show poison
        return OK

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return *OK, self.total_bytes - self.used_bytes, self.total_bytes

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: MemcpyKind, stream: int) -> tuple[Any, ...]:
        up = kind is MemcpyKind.cudaMemcpyHostToDevice
        device, host = (to, source) if up else (source, to)

        def copy() -> None:
            there = self._bytes(self.device, device, size, "device")
            here = self._bytes(self.pinned, host, size, "page-locked")
            if up:
                there[:] = here
            else:
                here[:] = there

        self._bytes(self.device, device, size, "device")
        self._bytes(self.pinned, host, size, "page-locked")
        self._stream(stream).add(None, copy)
        return OK

    # streams and events

    def _stream(self, handle: int) -> FakeStream:
        if handle not in self.streams:
            raise self.misuse(f"stream {handle:#x} isn't there")
        return self.streams[handle]

    def _event(self, handle: int) -> FakeEvent:
        if handle not in self.events:
            raise self.misuse(f"event {handle:#x} isn't there")
        return self.events[handle]

    def enqueue(self, handle: int, owner: object, work: Work) -> None:
        """For the fake TensorRT."""
        self._stream(handle).add(owner, work)

    def has_work_of(self, owner: object) -> bool:
        """`owner` as it was given to `enqueue`."""
        return any(each is owner for stream in self.streams.values() for each, _ in stream.queue)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        handle = next(self._handles)
        self.streams[handle] = FakeStream()
        return *OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.log.append("destroy stream")
        self._stream(stream).run()
        del self.streams[stream]
        return OK

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if self._capturing():
            return (Error.cudaErrorStreamCaptureUnsupported,)
        self._stream(stream).run()
        return OK

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags & self.cudaEventDisableTiming
        handle = next(self._handles)
        self.events[handle] = FakeEvent()
        return *OK, handle

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        self.log.append("destroy event")
        self._event(event)
        del self.events[event]
        return OK

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        found = self._event(event)
        found.recorded += 1
        found.stream = self._stream(stream)
        number = found.recorded

        def happen() -> None:
            found.happened = number

        found.stream.add(None, happen)
        return OK

    def cudaEventQuery(self, event: int) -> tuple[Any, ...]:
        found = self._event(event)
        if found.stream is not None and found.happened < found.recorded:
            found.stream.run(self.steps_per_query)
        return OK if found.happened == found.recorded else (Error.cudaErrorNotReady,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        found = self._event(event)
        while found.stream is not None and found.happened < found.recorded:
            found.stream.run(1)
        return OK

    # graphs

    def cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> tuple[Any, ...]:
        assert mode is CaptureMode.cudaStreamCaptureModeThreadLocal
        found = self._stream(stream)
        assert found.captured is None
        found.captured, found.invalid = [], False
        return OK

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        found = self._stream(stream)
        captured, found.captured = found.captured, None
        if captured is None or found.invalid:
            return Error.cudaErrorStreamCaptureInvalidated, None
        handle = next(self._handles)
        self.graphs[handle] = captured
        return *OK, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        handle = next(self._handles)
        self.executables[handle] = list(self.graphs[graph])
        return *OK, handle

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[Any, ...]:
        self.log.append("launch graph")
        if executable not in self.executables:
            raise self.misuse("a graph that isn't there was launched")
        for owner, work in self.executables[executable]:
            self._stream(stream).add(owner, work)
        return OK

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        if self.graphs.pop(graph, None) is None:
            raise self.misuse("a graph was destroyed twice")
        return OK

    def cudaGraphExecDestroy(self, executable: int) -> tuple[Any, ...]:
        self.log.append("destroy executable")
        if self.executables.pop(executable, None) is None:
            raise self.misuse("an executable was destroyed twice")
        return OK

    # device and errors

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return (*OK, 0) if self.devices else (Error.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, _: int) -> tuple[Any, ...]:
        return *OK, SimpleNamespace(name=b"Fake GPU", major=self.capability[0], minor=self.capability[1])

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return OK

    def cudaGetErrorName(self, status: Error) -> tuple[Any, ...]:
        return *OK, status.name.encode()

    def cudaGetErrorString(self, status: Error) -> tuple[Any, ...]:
        return *OK, status.name.removeprefix("cudaError").lower().encode()
