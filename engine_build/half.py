"""Casts one region of an ONNX graph to half precision: its weights and everything between them; the rest stays as it is."""

from __future__ import annotations

from collections.abc import Collection, MutableSequence
from typing import Final

import numpy as np
import onnx

from engine_build.nodes import put_behind

_LARGEST: Final = 65504.0


def half_precision(model: onnx.ModelProto, region: Collection[str]) -> onnx.ModelProto:
    """`model` with the nodes that `region` names computing in float16. `model` itself is left alone.

    A float tensor that enters the region is cast once to float16; one that leaves it is cast back to float32. Weights beyond
    float16's range become its largest value.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Caster(result, region).run()
    del result.graph.value_info[:]  # the old types
    onnx.checker.check_model(result, full_check=True)
    return result


class _Caster:
    def __init__(self, model: onnx.ModelProto, region: Collection[str]) -> None:
        self.graph = graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        typed = [*inferred.value_info, *inferred.input, *inferred.output]
        self.floats = {each.name for each in typed if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        self.weights = {each.name: each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
        self.inside = [node for node in graph.node if node.name in region]
        self.outside = [node for node in graph.node if node.name not in region]
        self.made: dict[str, str] = {}
        self.casts: dict[str, onnx.NodeProto] = {}

    def run(self) -> None:
        """Rewrite the graph in place."""
        born_inside = {name for node in self.inside for name in node.output}
        for node in self.inside:
            self._constant_to_half(node)
            for place, name in enumerate(node.input):
                if name in self.weights:
                    node.input[place] = self._half_weight(name)
                elif name in self.floats and name not in born_inside:
                    node.input[place] = self._cast(name, f"{name}_half", onnx.TensorProto.FLOAT16)
        leaving = {name for name in born_inside if name in self.floats}
        for node in self.outside:
            for place, name in enumerate(node.input):
                if name in leaving:
                    node.input[place] = self._cast(name, f"{name}_full", onnx.TensorProto.FLOAT)
        self._keep_outputs_full(leaving)
        self._reorder()
        drop_unused_weights(self.graph)

    def _constant_to_half(self, node: onnx.NodeProto) -> None:
        if node.op_type != "Constant":
            return
        value = node.attribute[0].t
        if value.data_type == onnx.TensorProto.FLOAT:
            value.CopyFrom(_half_tensor(value, value.name))

    def _half_weight(self, name: str) -> str:
        if name not in self.made:
            self.made[name] = f"{name}_half"
            self.graph.initializer.append(_half_tensor(self.weights[name], self.made[name]))
        return self.made[name]

    def _cast(self, source: str, target: str, kind: int) -> str:
        if target not in self.casts:
            self.casts[target] = onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)
        return target

    def _keep_outputs_full(self, leaving: set[str]) -> None:
        """An output of the graph that is born inside keeps its name and its float32: what was inside is renamed."""
        for output in self.graph.output:
            if output.name not in leaving:
                continue
            inner = f"{output.name}_inner"
            for node in (*self.inside, *self.casts.values()):
                _rename(node.output, output.name, inner)
                _rename(node.input, output.name, inner)
            self._cast(inner, output.name, onnx.TensorProto.FLOAT)

    def _reorder(self) -> None:
        """Each cast directly after the node that makes its input, or first if that is an input or a weight."""
        by_source: dict[str, list[onnx.NodeProto]] = {}
        for cast in self.casts.values():
            by_source.setdefault(cast.input[0], []).append(cast)
        put_behind(self.graph, by_source)


def drop_unused_weights(graph: onnx.GraphProto) -> None:
    """Remove initialisers that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    copies = [onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _half_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = np.clip(onnx.numpy_helper.to_array(tensor), -_LARGEST, _LARGEST)
    return onnx.numpy_helper.from_array(values.astype(np.float16), name)


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new
