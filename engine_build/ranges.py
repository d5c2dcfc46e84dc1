"""How large the values of a tensor get on calibration rows: by their maximum, or by the entropy that a smaller range loses."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from engine_build.entropy import range_of
from engine_build.onnx_run import Columns, OnnxRun, rows_of

Method = Literal["minmax", "entropy"]
METHODS: Final[tuple[Method, ...]] = ("minmax", "entropy")

_BATCH_ROWS: Final = 256
_BINS: Final = 1024
_QUANTISED_BINS: Final = 128
"""Of a symmetric 8-bit range. ONNX Runtime's default for `_BINS` is the same number, which makes entropy equal to min-max."""


def ranges_of(
    model: onnx.ModelProto, tensors: Sequence[str], columns: Columns, methods: Sequence[Method] = METHODS
) -> dict[Method, dict[str, float]]:
    """Method -> tensor -> the largest absolute value that eight bits shall hold.

    minmax: the largest that came up, nothing is clipped. entropy: the threshold whose clipped and quantised histogram differs
    least (Kullback-Leibler) from the values' own, as ONNX Runtime computes it. Tensors hold float32 values of any shape.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    for name in tensors:
        exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    run = OnnxRun(exposed, optimised=False)
    count = len(columns[run.inputs[0]])
    largest = dict.fromkeys(tensors, 0.0)
    histograms = _Histograms() if "entropy" in methods else None
    for start in range(0, count, _BATCH_ROWS):
        values = dict(zip(tensors, run.values(tensors, rows_of(columns, start, start + _BATCH_ROWS)), strict=True))
        for name, array in values.items():
            largest[name] = max(largest[name], float(np.abs(array).max(initial=0.0)))
        if histograms is not None:
            histograms.add(values)
    found: dict[Method, dict[str, float]] = {}
    for method in methods:
        found[method] = largest if method == "minmax" or histograms is None else histograms.thresholds(largest)
    return found


class _Histograms:
    """ONNX Runtime's collector of histograms, without what it prints; the thresholds are found in `entropy.py`."""

    def __init__(self) -> None:
        self._collector = HistogramCollector(
            method="entropy",
            symmetric=True,
            num_bins=_BINS,
            num_quantized_bins=_QUANTISED_BINS,
            percentile=99.999,
            scenario="same",
        )

    def add(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._collector.collect({name: [array] for name, array in values.items()})

    def thresholds(self, largest: Mapping[str, float]) -> dict[str, float]:
        found = {}
        for name, most in largest.items():
            counts, edges, least_value, largest_value, *_ = self._collector.histogram_dict[name]
            low, high = range_of(counts, edges, _QUANTISED_BINS)
            clipped = max(abs(max(low, float(least_value))), abs(min(high, float(largest_value))))
            found[name] = min(clipped, most)
        return found
