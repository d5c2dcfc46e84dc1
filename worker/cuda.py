"""CUDA as this project needs it: typed calls, each one checked, its errors told in one table. The only file that imports cuda.

Addresses, streams, events and graphs are integers: what CUDA calls handles. Every call may raise

    FatalEngineError         the process's GPU context is lost ("sticky": every later call fails too); leave the process
    OutOfDeviceMemoryError   too little device memory; nothing was allocated
    EngineError              any other refusal; it was cleared, so the next call doesn't see it

Calls that block (`synchronize`, `wait_for`) release the GIL. Nothing here keeps state: what was made is its caller's to free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from schemas.plan_choice import Gpu
from worker.errors import ConfigurationError, EngineError, FatalEngineError, OutOfDeviceMemoryError

SUCCESS: Final = 0
OUT_OF_MEMORY: Final = 2
NOT_READY: Final = 600
STICKY: Final = frozenset(
    {
        4,  # the driver is shutting down
        *(46, 100, 101, 201),  # the device is gone or was never there
        *(214, 220, 226),  # uncorrectable memory or NVLink error, contained error
        *(700, 702, 709, 710),  # illegal address, launch timed out, context destroyed, assert in a kernel
        *range(
            714, 720
        ),  # hardware stack, illegal instruction, misaligned or wrong address space, bad pc, launch failure
        *(721, 810, 999),  # tensor memory leak, MPS client ended, unknown
    }
)
"""Codes of cudaError_t after which the context is corrupt: https://docs.nvidia.com/cuda/cuda-runtime-api, data types."""

MIB: Final = 2**20


class NoGpuError(ConfigurationError):
    """There is no GPU that CUDA can use here. The message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Of the whole GPU, all processes together."""

    free_bytes: int
    total_bytes: int


class Cuda:
    """The current device. `api`: the module `cuda.bindings.runtime`, or what behaves like it."""

    def __init__(self, api: Any) -> None:  # noqa: ANN401 - the binding has no types
        self._api = api
        self._to_device = api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._to_host = api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        # A capture in one thread mustn't forbid allocations in others: an engine may be loaded while another one serves.
        self._capture_mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def gpu(self) -> Gpu:
        """The device, with what is free on it now. Raises `NoGpuError` if there is none."""
        try:
            (index,) = self._call("cudaGetDevice")
            (found,) = self._call("cudaGetDeviceProperties", index)
            free_bytes = self.memory().free_bytes
        except EngineError as error:
            raise NoGpuError(
                f"no usable GPU: {error}; install the NVIDIA driver and give this process a device, "
                'or set engine.runtime to "onnx"'
            ) from error
        name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
        return Gpu(name=name, compute_capability=f"{found.major}.{found.minor}", free_bytes=free_bytes)

    def memory(self) -> DeviceMemory:
        """Free and total device memory now."""
        free_bytes, total_bytes = self._call("cudaMemGetInfo")
        return DeviceMemory(free_bytes=int(free_bytes), total_bytes=int(total_bytes))

    def allocate(self, size_bytes: int) -> int:
        """Device memory, aligned to 256 bytes at least; its contents are arbitrary."""
        (address,) = self._call("cudaMalloc", size_bytes)
        return int(address)

    def free(self, address: int) -> None:
        """Give device memory back. Waits for the device's work."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> int:
        """Page-locked host memory, which the GPU copies from and to by itself; its contents are arbitrary."""
        try:
            (address,) = self._call("cudaHostAlloc", size_bytes, self._api.cudaHostAllocDefault)
        except OutOfDeviceMemoryError as error:
            raise EngineError(
                f"{size_bytes / MIB:,.1f} MiB of page-locked host memory can't be had: {error}; "
                "lower engine.slots or batching.max_rows, or give the process more memory"
            ) from error
        return int(address)

    def free_pinned(self, address: int) -> None:
        """Give page-locked memory back. Views of it are invalid from here on."""
        self._call("cudaFreeHost", address)

    def create_stream(self) -> int:
        """A stream that doesn't wait for the default stream, nor the other way round."""
        (stream,) = self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking)
        return int(stream)

    def destroy_stream(self, stream: int) -> None:
        """Destroy it."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Block until everything in `stream` is done. Tells errors of what ran in it."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        """An event without times, whose waiter sleeps rather than spins: a worker's cores have other work."""
        (event,) = self._call(
            "cudaEventCreateWithFlags", self._api.cudaEventDisableTiming | self._api.cudaEventBlockingSync
        )
        return int(event)

    def destroy_event(self, event: int) -> None:
        """Destroy it."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """`event` happens when everything that is in `stream` now is done."""
        self._call("cudaEventRecord", event, stream)

    def is_done(self, event: int) -> bool:
        """Whether `event` has happened. Doesn't block."""
        status, *_ = self._api.cudaEventQuery(event)
        if int(status) == NOT_READY:
            return False
        self._check("cudaEventQuery", status)
        return True

    def wait_for(self, event: int) -> None:
        """Block until `event` has happened."""
        self._call("cudaEventSynchronize", event)

    def upload(self, device: int, host: int, size_bytes: int, stream: int) -> None:
        """Copy from page-locked memory, some time soon: neither side may be touched until the stream is past it."""
        self._call("cudaMemcpyAsync", device, host, size_bytes, self._to_device, stream)

    def download(self, host: int, device: int, size_bytes: int, stream: int) -> None:
        """Copy to page-locked memory, likewise."""
        self._call("cudaMemcpyAsync", host, device, size_bytes, self._to_host, stream)

    def begin_capture(self, stream: int) -> None:
        """What is put into `stream` from here on isn't run but recorded, until `end_capture`."""
        self._call("cudaStreamBeginCapture", stream, self._capture_mode)

    def end_capture(self, stream: int) -> int:
        """The graph of what was recorded. The stream is a normal one again, also if this raises."""
        (graph,) = self._call("cudaStreamEndCapture", stream)
        return int(graph)

    def instantiate(self, graph: int) -> int:
        """An executable of `graph`, which may be destroyed then."""
        (executable,) = self._call("cudaGraphInstantiate", graph, 0)
        return int(executable)

    def launch(self, executable: int, stream: int) -> None:
        """Put everything in the graph into `stream`, in one call."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_graph(self, graph: int) -> None:
        """Destroy it; executables made from it stay."""
        self._call("cudaGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        """Destroy it."""
        self._call("cudaGraphExecDestroy", executable)

    def raise_pending(self, doing: str) -> None:
        """Raise what CUDA reports of an earlier call that somebody else made (TensorRT), if anything, and clear it."""
        status, *_ = self._api.cudaGetLastError()
        if int(status) != SUCCESS:
            raise self._error(doing, status)

    def _call(self, name: str, *arguments: Any) -> list[Any]:  # noqa: ANN401 - whatever the binding takes and gives
        status, *values = getattr(self._api, name)(*arguments)
        self._check(name, status)
        return list(values)

    def _check(self, name: str, status: Any) -> None:  # noqa: ANN401 - a cudaError_t
        if int(status) == SUCCESS:
            return
        self._api.cudaGetLastError()  # else TensorRT would find this error and take it for its own
        raise self._error(name, status)

    def _error(self, doing: str, status: Any) -> EngineError:  # noqa: ANN401 - likewise
        code = int(status)
        (_, name), (_, words) = self._api.cudaGetErrorName(status), self._api.cudaGetErrorString(status)
        said = f"{doing}: {_text(name)} ({code}): {_text(words)}"
        if code in STICKY:
            return FatalEngineError(
                f"the GPU context is lost: {said}; restart the worker, and look at the driver's log"
            )
        if code == OUT_OF_MEMORY:
            return OutOfDeviceMemoryError(f"{said}{self._figures()}")
        return EngineError(said)

    def _figures(self) -> str:
        """What is free, for a message; nothing if even that can't be asked."""
        status, free_bytes, total_bytes = self._api.cudaMemGetInfo()
        if int(status) != SUCCESS:
            return ""
        return f"; {free_bytes / MIB:,.1f} of {total_bytes / MIB:,.1f} MiB device memory are free"


def load_cuda() -> Cuda:
    """CUDA by the package cuda-python. Raises `NoGpuError` if it isn't installed or can't be loaded."""
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - an optional package
    except (ImportError, OSError, RuntimeError) as error:
        raise NoGpuError(
            f"no usable GPU: the package cuda-python can't be loaded ({error}); install forecast-worker[gpu], "
            'or set engine.runtime to "onnx"'
        ) from error
    return Cuda(runtime)


def _text(words: object) -> str:
    return words.decode(errors="replace") if isinstance(words, bytes) else str(words)
