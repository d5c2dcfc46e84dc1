"""ONNX Runtime on the CPU: forecasts of a graph, and the values inside it. The reference that everything is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from engine_build.errors import GraphError
from schemas.contract import FORECAST

FloatArray: TypeAlias = NDArray[np.float32]
Columns: TypeAlias = Mapping[str, FloatArray]
"""Event field -> float32[rows, n], or float32[rows] for a number. Fields that a graph doesn't take are ignored."""

BATCH_ROWS: Final = 512
"""What a CPU's caches bear: batches of 2,048 rows of the Transformers took up to three times as long per row."""


class OnnxRun:
    """A graph ready to run. model: the graph, its serialised bytes or its file. threads: 0 for all cores.

    optimised=False keeps every node as it stands, which is needed where values inside the graph are read.
    Raises `GraphError` if ONNX Runtime doesn't take it.
    """

    def __init__(self, model: onnx.ModelProto | bytes | Path, *, threads: int = 0, optimised: bool = True) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait by spinning take five times as long where others want the cores, too.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
        source = str(model) if isinstance(model, Path) else "the graph"
        try:
            self._session = ort.InferenceSession(
                str(content) if isinstance(content, Path) else content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise GraphError(source, [f"ONNX Runtime can't load it: {error}"]) from error
        self.inputs: tuple[str, ...] = tuple(each.name for each in self._session.get_inputs())

    def values(self, names: Sequence[str], columns: Columns) -> list[NDArray[np.float32]]:
        """The outputs `names` on all rows of `columns` at once."""
        found: list[NDArray[np.float32]] = self._session.run(list(names), {name: columns[name] for name in self.inputs})
        return found

    def forecasts(self, columns: Columns, *, batch_rows: int = BATCH_ROWS) -> FloatArray:
        """float32[rows, horizon, quantiles], computed `batch_rows` rows at a time."""
        count = len(columns[self.inputs[0]])
        if count == 0:
            raise ValueError("columns: got no rows, expected at least one")
        parts = [self.values([FORECAST], rows_of(columns, k, k + batch_rows))[0] for k in range(0, count, batch_rows)]
        return np.concatenate(parts)


def spread(columns: Columns, most: int) -> dict[str, FloatArray]:
    """At most `most` rows of every column, evenly spaced, so that few rows stand for all of them."""
    count = len(next(iter(columns.values())))
    places = np.linspace(0, count - 1, min(most, count)).astype(np.int64)
    return {name: values[places] for name, values in columns.items()}


def rows_of(columns: Columns, start: int, stop: int) -> dict[str, FloatArray]:
    """Rows `start` to `stop` of every column, views."""
    return {name: values[start:stop] for name, values in columns.items()}
