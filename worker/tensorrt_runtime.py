"""TensorRT's runtime half behind typed calls: load a plan, ask what is in it, run it. The only file that imports tensorrt.

One adapter for TensorRT 8.6 to 11 and TensorRT-RTX, by what each offers, not by its version:

- Contexts get their scratch memory from outside: `create_execution_context` with a strategy and `set_device_memory` (10 on),
  or `create_execution_context_without_device_memory` and the property `device_memory` (8.6).
- `device_memory_size_v2` (10 on) or `device_memory_size` (8.6).
- Calls tell a refusal by None, by False, or by a RuntimeError, each in another version; what was wrong stands in the log.

TensorRT keeps one logger for the whole process, so a library's logger is made once and never freed.

TensorRT's objects free GPU memory when their last reference goes. So no function here holds one in a local variable while
something may fail: whoever keeps the exception would keep its frames, and the memory with them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from schemas.plan_choice import PlanRuntime, RuntimeName
from worker.batch_shapes import RowRange
from worker.contract import Tensor
from worker.errors import EngineError, OutOfDeviceMemoryError

Result = TypeVar("Result")

DTYPES: Final = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64"}
"""TensorRT's names of types -> ours; others in lower case."""

KEPT_MESSAGES: Final = 16


class RuntimeMissingError(Exception):
    """The library isn't installed, or can't be loaded here."""


class PlanRefusedError(Exception):
    """TensorRT can't make an engine of these bytes. The message is TensorRT's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTensors:
    """What a plan takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Messages:
    """The last errors and warnings that TensorRT logged. Its own threads write here too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=KEPT_MESSAGES)

    def add(self, line: str) -> None:
        """Keep a line."""
        with self._lock:
            self._lines.append(line.strip())

    def take(self) -> str:
        """Everything since the last call, in one line."""
        with self._lock:
            lines = list(dict.fromkeys(self._lines))
            self._lines.clear()
        return "; ".join(lines) or "TensorRT logged no reason"


class TensorRtLibrary:
    """`tensorrt` or `tensorrt_rtx`, or what behaves like one of them. Make one per process and library."""

    def __init__(self, library: Any, name: RuntimeName) -> None:  # noqa: ANN401 - the bindings' types differ by version
        self.runtime = PlanRuntime(name=name, version=str(library.__version__))
        self.messages = Messages()
        self._library = library
        self._logger = _logger(library, self.messages)

    def load(self, plan: bytes) -> LoadedPlan:
        """Make an engine of a plan, which runs code from it: only from bytes whose digest was checked.

        Raises `PlanRefusedError` if TensorRT can't, `OutOfDeviceMemoryError` if the weights don't fit.
        """
        self.messages.take()
        loaded = LoadedPlan(self, self._library)
        try:
            loaded.load(self._logger, plan)
        except EngineError:
            loaded.close()
            raise
        return loaded

    def made(self, doing: str, make: Callable[[], Result | None]) -> Result:
        """What `make` gives. Raises what the log says if it gives nothing."""
        try:
            made = make()
        except (RuntimeError, TypeError) as error:  # pybind11 tells a null pointer by TypeError
            raise self.refused(doing, str(error)) from error
        if made is None:
            raise self.refused(doing)
        return made

    def refused(self, doing: str, detail: str = "") -> EngineError:
        """The error for a refusal, with TensorRT's words."""
        said = self.messages.take()
        text = f"{self.runtime}: {doing}: {f'{detail}: ' if detail else ''}{said}"
        lost = any(words in text.lower() for words in ("out of memory", "outofmemory", "out_of_memory"))
        return OutOfDeviceMemoryError(text) if lost else EngineError(text)


class LoadedPlan:
    """A plan in the GPU's memory. `close` it after its contexts."""

    def __init__(self, library: TensorRtLibrary, module: Any) -> None:  # noqa: ANN401
        self._library = library
        self._module = module
        self._runtime: Any = None
        self._engine: Any = None

    def load(self, logger: Any, plan: bytes) -> None:  # noqa: ANN401
        """See `TensorRtLibrary.load`."""
        made = self._library.made
        self._runtime = made("making a runtime", lambda: self._module.Runtime(logger))
        try:
            self._engine = made("loading the plan", lambda: self._runtime.deserialize_cuda_engine(plan))
        except OutOfDeviceMemoryError:
            raise
        except EngineError as error:
            raise PlanRefusedError(str(error)) from error

    @property
    def tensors(self) -> PlanTensors:
        """Inputs and outputs in the plan's order; the batch dimension is None."""
        found = {True: list[Tensor](), False: list[Tensor]()}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(int(size) if size >= 0 else None for size in self._engine.get_tensor_shape(name))
            kind = self._engine.get_tensor_dtype(name).name
            is_input = self._engine.get_tensor_mode(name) == self._module.TensorIOMode.INPUT
            found[is_input].append(Tensor(name=name, dtype=DTYPES.get(kind, kind.lower()), shape=shape))
        return PlanTensors(inputs=tuple(found[True]), outputs=tuple(found[False]))

    @property
    def profiles(self) -> tuple[RowRange, ...]:
        """The batch sizes of each profile: those that all inputs take."""
        inputs = [tensor.name for tensor in self.tensors.inputs]
        found = []
        for index in range(self._engine.num_optimization_profiles):
            bounds = [self._engine.get_tensor_profile_shape(name, index) for name in inputs]
            least, usual, most = ([int(bound[k][0]) for bound in bounds] for k in range(3))
            found.append(RowRange(max(least), min(usual), min(most)))
        return tuple(found)

    @property
    def scratch_bytes(self) -> int:
        """Device memory that a context needs while it runs; contexts that never run at the same time may share it."""
        size = getattr(self._engine, "device_memory_size_v2", None)
        return int(self._engine.device_memory_size if size is None else size)

    def context(self, profile: int, *, scratch: int, scratch_bytes: int, stream: int) -> PlanContext:
        """A context for one profile, whose scratch memory is `scratch_bytes` at device address `scratch`.

        Raises `EngineError`; also if the plan's builder didn't allow two contexts on one profile (8.6 must be asked for that).
        """
        context = PlanContext(self._library, self._library.made("making a context", self._new_context))
        try:
            context.prepare(profile, scratch=scratch, scratch_bytes=scratch_bytes, stream=stream)
        except EngineError:
            context.close()
            raise
        return context

    def _new_context(self) -> Any:  # noqa: ANN401
        strategy = getattr(self._module, "ExecutionContextAllocationStrategy", None)
        if strategy is None:
            return self._engine.create_execution_context_without_device_memory()
        return self._engine.create_execution_context(strategy.USER_MANAGED)

    def close(self) -> None:
        """Free the weights. Idempotent."""
        self._engine = None
        self._runtime = None


class PlanContext:
    """Runs a plan. It remembers what was set, and sets only what changes: a changed shape makes the next run slower."""

    def __init__(self, library: TensorRtLibrary, context: Any) -> None:  # noqa: ANN401
        self._library = library
        self._context: Any = context
        self._addresses: dict[str, int] = {}
        self._rows = 0

    def prepare(self, profile: int, *, scratch: int, scratch_bytes: int, stream: int) -> None:
        """Choose the profile and the scratch memory, once."""
        if self._context.active_optimization_profile != profile:
            self._done("choosing a profile", lambda: self._context.set_optimization_profile_async(profile, stream))
        if hasattr(self._context, "set_device_memory"):
            self._context.set_device_memory(scratch, scratch_bytes)
        else:
            self._context.device_memory = scratch

    def run(self, rows: int, widths: Mapping[str, Sequence[int]], addresses: Mapping[str, int], stream: int) -> None:
        """Put one batch into `stream`.

        Args:
            rows: of the batch.
            widths: input name -> its sizes after the first dimension.
            addresses: of every input and output, in device memory.
            stream: to run in.
        """
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                self._done(f"setting the address of {name}", lambda: self._context.set_tensor_address(name, address))  # noqa: B023
                self._addresses[name] = address
        if rows != self._rows:
            self._rows = 0  # unless all of it succeeds
            for name, width in widths.items():
                shape = (rows, *width)
                self._done(f"setting {name} to {shape}", lambda: self._context.set_input_shape(name, shape))  # noqa: B023
            self._rows = rows
        self._done(f"running {rows} rows", lambda: self._context.execute_async_v3(stream))

    def close(self) -> None:
        """Free it. Idempotent."""
        self._context = None

    def _done(self, doing: str, call: Callable[[], Any]) -> None:
        try:
            succeeded = call()
        except RuntimeError as error:
            raise self._library.refused(doing, str(error)) from error
        if succeeded is False:
            raise self._library.refused(doing)


@cache
def load_library(name: RuntimeName) -> TensorRtLibrary:
    """The installed library of that name; the same object at every call. Raises `RuntimeMissingError`."""
    try:
        if name == "tensorrt":
            import tensorrt as library  # noqa: PLC0415 - an optional package
        else:
            import tensorrt_rtx as library  # noqa: PLC0415 - likewise
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeMissingError(f"{name} can't be loaded: {error}") from error
    return TensorRtLibrary(library, name)


def _logger(library: Any, messages: Messages) -> Any:  # noqa: ANN401
    """An object of the library's own logger class, because it calls back from C++."""
    worst = int(library.ILogger.Severity.ERROR)

    class Logger(library.ILogger):  # type: ignore[misc]  # the base is chosen at run time
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            if int(severity) <= worst:
                messages.add(msg)

    return Logger()
