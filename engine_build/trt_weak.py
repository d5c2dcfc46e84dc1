"""Weakly typed networks (TensorRT 8.6): the precision flags allow low precision everywhere, so FP32 must be held on to."""

from __future__ import annotations

from typing import Any, Final

from engine_build.trt_types import Network
from engine_build.trt_values import names_of

FREE: Final = (
    *("CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE", "CAST"),
    *("LOOP_OUTPUT", "TRIP_LIMIT", "RECURRENCE", "ITERATOR"),
)


def bind_to_fp32(trt: Any, network: Network) -> None:  # noqa: ANN401
    """Bind to FP32 the layers that the graph computes in FP32; the casts around the others say that they are FP16.

    Both what a layer computes in and what it gives: bound to compute in FP32 only, it could still hand on FP16, in which days
    since 1970 are known to 16 days. What stands between DequantizeLinear and QuantizeLinear is FP32 by type and INT8 by intention, so it stays free.
    """
    kinds = trt.LayerType
    free = {getattr(kinds, name) for name in FREE if hasattr(kinds, name)}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = names_of(layer.get_output(0) for layer in layers if layer.type == kinds.DEQUANTIZE)
    quantised = names_of(layer.get_input(0) for layer in layers if layer.type == kinds.QUANTIZE)
    for layer in layers:
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = names_of(layer.get_input(index) for index in range(layer.num_inputs))
        floats = all(tensor.dtype == trt.float32 for tensor in outputs)
        if layer.type in free or not floats or inputs & dequantised or names_of(outputs) & quantised:
            continue
        layer.precision = trt.float32
        for index in range(layer.num_outputs):
            layer.set_output_type(index, trt.float32)
