"""ONNX Runtime on the CPU as an `Engine`: the default of demo and tests, and the stand-by when a GPU fails."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from schemas.engine_card import EngineCard
from worker.contract import FORECAST, Tensor, spec_of
from worker.engine import EngineSpec, Forecasts, Slot, Ticket
from worker.engine_slots import Slots
from worker.errors import ContractError, EngineError
from worker.memory_return import give_back

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
}


class OnnxEngine:
    """Runs an ONNX graph. `submit` computes: the CPU that would overlap is the one that decodes.

    Args:
        session: of the graph, made by `load`.
        spec: what it takes and gives.
        slots: batches whose memory may be in use at once, the one being filled among them.
    """

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, *, slots: int) -> None:
        self._session: ort.InferenceSession | None = session
        self._spec = spec
        self._slots = Slots((_slot(index, spec) for index in range(slots)), spec.max_rows)
        self._results: deque[NDArray[np.float32] | EngineError] = deque()

    @property
    def spec(self) -> EngineSpec:
        """See `Engine.spec`."""
        return self._spec

    @classmethod
    def load(
        cls, model: Path, card: EngineCard, schema: Mapping[str, Any], *, slots: int, max_rows: int, threads: int
    ) -> OnnxEngine:
        """Load `model` and hold it against its card and the feature schema.

        Args:
            model: the ONNX file.
            card: says horizon, quantiles, version and the file's digest.
            schema: the feature schema whose fields are the model's inputs.
            slots: see the class.
            max_rows: rows per batch; memory is allocated for them.
            threads: of ONNX Runtime; 0 uses all cores.

        Raises `ContractError` when file, card and schema don't agree.
        """
        content = model.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if card.onnx_sha256 != digest:
            raise ContractError(f"{model}: sha256 is {digest}, its card says {card.onnx_sha256}; publish both together")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as exception:  # ONNX Runtime's exceptions share no base class
            raise ContractError(f"{model}: ONNX Runtime can't load it: {exception}") from exception
        inputs, outputs = ([_tensor(node) for node in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
        spec = spec_of(inputs, outputs, card, schema, max_rows=max_rows, precision=card.precision, digest=digest)
        return cls(session, spec, slots=slots)

    def acquire(self) -> Slot | None:
        """See `Engine.acquire`."""
        return self._slots.acquire()

    def submit(self, slot: Slot, rows: int) -> Ticket:
        """See `Engine.submit`. A failure of the graph is kept for `collect`, so that order and ownership stay simple."""
        if self._session is None:
            raise EngineError("the engine is closed")
        self._slots.require(slot, rows)
        ticket = self._slots.submitted(slot, rows)
        feeds = {name: column[:rows] for name, column in slot.columns.items()}
        try:
            (values,) = self._session.run([FORECAST], feeds)
        except Exception as exception:  # noqa: BLE001 - ONNX Runtime's exceptions share no base class
            self._results.append(EngineError(f"ONNX Runtime failed on {rows} rows: {exception}"))
        else:
            self._results.append(values)
        return ticket

    def wait(self, ticket: Ticket, timeout_s: float) -> bool:  # noqa: ARG002 - it is always there
        """See `Engine.wait`."""
        return True

    def collect(self, ticket: Ticket) -> Forecasts:
        """See `Engine.collect`."""
        self._slots.collected(ticket)
        values = self._results.popleft()
        if isinstance(values, EngineError):
            raise values
        expected = (ticket.rows, self._spec.horizon, len(self._spec.quantiles))
        if values.shape != expected:
            raise EngineError(f"forecast shape: got {values.shape}, expected {expected}")
        return Forecasts(values, self._spec)

    def release(self, slot: Slot) -> None:
        """See `Engine.release`."""
        self._slots.release(slot)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None
        self._slots.clear()
        self._results.clear()
        give_back()


def _slot(index: int, spec: EngineSpec) -> Slot:
    def column(width: int | None) -> NDArray[np.float32]:
        return np.zeros(spec.max_rows if width is None else (spec.max_rows, width), np.float32)

    return Slot(index, {name: column(width) for name, width in spec.inputs.items()})


def _tensor(node: Any) -> Tensor:  # noqa: ANN401 - onnxruntime.NodeArg has no stubs
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(name=node.name, dtype=DTYPES.get(node.type, node.type), shape=shape)
