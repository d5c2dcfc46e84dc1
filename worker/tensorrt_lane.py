"""One slot of the TensorRT engine: its page-locked memory, and what puts a batch from it into the stream.

Ownership: a lane's page-locked memory is written by whoever holds its slot, read and written by the GPU between `start` and the
lane's event, and read again by whoever collected the result. Nothing here waits; nothing here frees (`tensorrt_load` does).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.batch_shapes import Shape
from worker.contract import FORECAST
from worker.cuda import Cuda
from worker.engine import Slot
from worker.errors import EngineError
from worker.tensorrt_runtime import PlanContext

ALIGNMENT_BYTES: Final = 256
FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One input, or the output, within a lane's memory: where it begins, and its sizes after the batch dimension."""

    name: str
    offset: int
    width: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return FLOAT_BYTES * math.prod(self.width)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a lane's memory is divided, the same on host and device: the inputs, then the output, each for `rows` rows."""

    inputs: tuple[Field, ...]
    output: Field
    rows: int
    size_bytes: int

    @classmethod
    def of(cls, inputs: Mapping[str, int | None], output_width: Sequence[int], rows: int) -> Layout:
        """The layout for inputs as `EngineSpec.inputs` has them, and an output of that width."""
        widths = {name: () if width is None else (width,) for name, width in inputs.items()}
        fields, offset = [], 0
        for name, width in {**widths, FORECAST: tuple(output_width)}.items():
            field = Field(name, offset, width)
            fields.append(field)
            offset += -(-field.row_bytes * rows // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return cls(tuple(fields[:-1]), fields[-1], rows, offset)

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Input name -> its sizes after the batch dimension."""
        return {field.name: field.width for field in self.inputs}

    def addresses(self, base: int) -> dict[str, int]:
        """Name -> address of every field in memory that begins at `base`."""
        return {field.name: base + field.offset for field in (*self.inputs, self.output)}

    def views(self, base: int) -> dict[str, NDArray[np.float32]]:
        """Name -> float32[rows, ...] of host memory that begins at `base`. They are as valid as that memory is."""
        memory = memoryview((ctypes.c_ubyte * self.size_bytes).from_address(base)).cast("B")
        return {
            field.name: np.frombuffer(
                memory, np.float32, count=self.rows * math.prod(field.width), offset=field.offset
            ).reshape(self.rows, *field.width)
            for field in (*self.inputs, self.output)
        }


class Lane:
    """See the module.

    Args:
        cuda: the device.
        layout: of both memories.
        host: address of `layout.size_bytes` page-locked bytes.
        device: address of as many on the device, which all lanes of an engine share: their stream runs one batch at a time.
        stream: that every lane of the engine uses.
        event: of this lane; it happens when the batch that was last started is back on the host.
        index: of the slot.
        max_rows: that the slot offers; the layout may have room for more.
    """

    def __init__(
        self,
        cuda: Cuda,
        layout: Layout,
        *,
        host: int,
        device: int,
        stream: int,
        event: int,
        index: int,
        max_rows: int,
    ) -> None:
        self.event = event
        self._cuda = cuda
        self._layout = layout
        self._host = layout.addresses(host)
        self._device = layout.addresses(device)
        self._widths = layout.widths
        self._stream = stream
        views = layout.views(host)
        self._output = views.pop(FORECAST)
        self._inputs = views
        for column in (*views.values(), self._output):
            column.fill(0.0)
        self.slot = Slot(index, {name: column[:max_rows] for name, column in views.items()})
        self._contexts: dict[int, PlanContext] = {}
        self._graphs: dict[int, int] = {}

    def use(self, profile: int, context: PlanContext) -> None:
        """Run batches of `profile` in `context`, which the other lanes use too."""
        self._contexts[profile] = context

    def capture(self, context: PlanContext, rows: int) -> int:
        """A CUDA graph of `rows` rows, copies included, run in `context`; its caller destroys it.

        The context belongs to graphs of these rows from here on: to run anything else in it would spoil them. It runs once before,
        because the first run of a shape allocates, which can't be captured. Blocks until that is done. Raises `EngineError`.
        """
        self._enqueue(context, rows)
        self._cuda.synchronize(self._stream)
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue(context, rows)
        except BaseException:
            self._abandon_capture()
            raise
        return self._cuda.end_capture(self._stream)

    def replay(self, rows: int, executable: int) -> None:
        """Launch `executable` for batches of the shape of `rows` rows that want a graph."""
        self._graphs[rows] = executable

    def start(self, rows: int, shape: Shape) -> None:
        """Put the slot's first `rows` rows into the stream as `shape`, the rows beyond them zeroed, and record the event."""
        if shape.rows > rows:
            for column in self._inputs.values():
                column[rows : shape.rows] = 0.0
        executable = self._graphs.get(shape.rows) if shape.graph else None
        if executable is None:
            self._enqueue(self._contexts[shape.profile], shape.rows)
        else:
            self._cuda.launch(executable, self._stream)
        self._cuda.record(self.event, self._stream)

    def result(self, rows: int) -> NDArray[np.float32]:
        """float32[rows, horizon, quantiles] of the batch that was last started: a view, valid until the next one is."""
        return self._output[:rows]

    def _enqueue(self, context: PlanContext, rows: int) -> None:
        for field in self._layout.inputs:
            name = field.name
            self._cuda.upload(self._device[name], self._host[name], rows * field.row_bytes, self._stream)
        context.run(rows, self._widths, self._device, self._stream)
        output = self._layout.output
        self._cuda.download(self._host[FORECAST], self._device[FORECAST], rows * output.row_bytes, self._stream)

    def _abandon_capture(self) -> None:
        """End a capture that failed. CUDA says once more that it is invalid, or gives what was recorded so far."""
        try:
            graph = self._cuda.end_capture(self._stream)
        except EngineError:
            return
        if graph:
            self._cuda.destroy_graph(graph)
