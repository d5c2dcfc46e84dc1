"""Layers in eight bits: QuantizeLinear and DequantizeLinear before their two operands, nothing else in the graph changed.

Written here rather than by onnxruntime.quantization because that puts the pair before *every* reader of a tensor, also before
additions and normalisations that stay in floating point (docs/adr/0015).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_build.errors import GraphError
from engine_build.nodes import put_behind

LEAST_OPSET: Final = 13
"""The first in which QuantizeLinear has a scale per channel."""

_LARGEST: Final = 127.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A product of values and constant weights. values, weights: its two operands. axis: of the weights' output channels."""

    node: str
    values: str
    weights: str
    axis: int
    size: int


def layers_of(model: onnx.ModelProto, nodes: Collection[str]) -> tuple[Layer, ...]:
    """The layers among `nodes` that have an eight-bit form: MatMul, Gemm and Conv with float weights, in the graph's order."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    found = []
    for node in model.graph.node:
        places = [place for place, name in enumerate(node.input[:2]) if name in weights]
        if node.name not in nodes or node.op_type not in {"MatMul", "Gemm", "Conv"} or len(places) != 1:
            continue
        shape = weights[node.input[places[0]]].dims
        if len(shape) >= 2 and (node.op_type == "MatMul" or places == [1]):
            found.append(
                Layer(
                    node=node.name,
                    values=node.input[1 - places[0]],
                    weights=node.input[places[0]],
                    axis=_axis(node, places[0], len(shape)),
                    size=int(np.prod(shape)),
                )
            )
    return tuple(found)


def _axis(node: onnx.NodeProto, place: int, dimensions: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return dimensions - 1 if place == 1 else dimensions - 2


def require_opset(model: onnx.ModelProto, source: str) -> None:
    """Raise `GraphError` unless the model's opset has quantisation per channel."""
    opset = max(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    if opset < LEAST_OPSET:
        raise GraphError(
            source, [f"opset {opset}: INT8 needs {LEAST_OPSET} or newer (scales per channel); export it anew"]
        )


def value_scale(largest: float) -> np.float32:
    """Scale of values up to `largest` in absolute value; 1 if there are none but zeros."""
    return np.float32(largest / _LARGEST) if largest > 0 else np.float32(1.0)


def weight_scales(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """A scale for each output channel: float32[channels]; 1 where a channel holds zeros only."""
    others = tuple(each for each in range(weights.ndim) if each != axis)
    largest = np.abs(weights).max(axis=others)
    scales: NDArray[np.float32] = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    return scales


def quantised(model: onnx.ModelProto, layers: Collection[Layer], largest: Mapping[str, float]) -> onnx.ModelProto:
    """`model` with `layers` in eight bits; `model` itself is left alone.

    Values: symmetric, one scale, from `largest` (tensor -> largest absolute value). Weights: float -> QuantizeLinear ->
    DequantizeLinear, symmetric, a scale per output channel. Biases and results stay float.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    writer = PairWriter(graph)
    nodes = {node.name: node for node in graph.node}
    for layer in layers:
        weights = onnx.numpy_helper.to_array(writer.initializers[layer.weights])
        values = writer.pair(layer.values, np.array(value_scale(largest[layer.values])), None)
        quantised_weights = writer.pair(layer.weights, weight_scales(weights, layer.axis), layer.axis)
        node = nodes[layer.node]
        for place, name in enumerate(node.input[:2]):
            node.input[place] = values if name == layer.values else quantised_weights
    writer.place()
    onnx.checker.check_model(result, full_check=True)
    return result


class PairWriter:
    """Adds pairs of QuantizeLinear and DequantizeLinear to a graph, one for each tensor (and axis)."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._made: dict[tuple[str, int | None], str] = {}
        self._after: dict[str, list[onnx.NodeProto]] = {}

    def pair(self, tensor: str, scale: NDArray[np.float32], axis: int | None) -> str:
        """The name of what comes out of the pair behind `tensor`."""
        key = (tensor, axis)
        if key in self._made:
            return self._made[key]
        stem = tensor if axis is None else f"{tensor}_{axis}"
        zero = np.zeros(scale.shape, np.int8)
        for name, array in ((f"{stem}_scale", scale.astype(np.float32)), (f"{stem}_zero", zero)):
            self.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        operands = [f"{stem}_scale", f"{stem}_zero"]
        make = onnx.helper.make_node
        self._after[tensor] = [
            *self._after.get(tensor, ()),
            make("QuantizeLinear", [tensor, *operands], [f"{stem}_q"], name=f"{stem}_quantize", **attributes),
            make("DequantizeLinear", [f"{stem}_q", *operands], [f"{stem}_dq"], name=f"{stem}_dequantize", **attributes),
        ]
        self._made[key] = f"{stem}_dq"
        return f"{stem}_dq"

    def place(self) -> None:
        """Put every pair directly behind the node that makes its tensor, or first if that is an input or a weight."""
        put_behind(self.graph, self._after)
