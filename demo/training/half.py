"""Casts one region of an ONNX graph to half precision: its weights and everything between them; the rest stays as it is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

_FLOAT: Final = 1  # TensorProto.FLOAT
_FLOAT16: Final = 10  # TensorProto.FLOAT16
_LARGEST: Final = 65504.0

InRegion = Callable[[str], bool]


def half_precision(model: Any, in_region: InRegion) -> Any:  # noqa: ANN401 - an untyped library
    """`model` with the nodes whose name is `in_region` computing in float16. `model` itself is left alone.

    A float tensor that enters the region is cast once to float16; one that leaves it is cast back to float32.
    """
    onnx: Any = importlib.import_module("onnx")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Caster(onnx, result, in_region).run()
    del result.graph.value_info[:]  # the old types
    onnx.checker.check_model(result, full_check=True)
    return result


class _Caster:
    def __init__(self, onnx: Any, model: Any, in_region: InRegion) -> None:  # noqa: ANN401
        self.onnx, self.model, self.graph = onnx, model, model.graph
        graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        typed = [*inferred.value_info, *inferred.input, *inferred.output]
        self.floats = {each.name for each in typed if each.type.tensor_type.elem_type == _FLOAT}
        self.weights = {each.name: each for each in graph.initializer if each.data_type == _FLOAT}
        self.inside = [node for node in graph.node if in_region(node.name)]
        self.outside = [node for node in graph.node if not in_region(node.name)]
        self.made: dict[str, str] = {}
        self.casts: dict[str, Any] = {}

    def run(self) -> None:
        """Rewrite the graph in place."""
        born_inside = {name for node in self.inside for name in node.output}
        for node in self.inside:
            self._constant_to_half(node)
            for place, name in enumerate(node.input):
                if name in self.weights:
                    node.input[place] = self._half_weight(name)
                elif name in self.floats and name not in born_inside:
                    node.input[place] = self._cast(name, f"{name}_half", _FLOAT16)
        leaving = [name for name in born_inside if name in self.floats]
        for node in self.outside:
            for place, name in enumerate(node.input):
                if name in leaving:
                    node.input[place] = self._cast(name, f"{name}_full", _FLOAT)
        self._reorder()
        self._drop_unused_weights()

    def _constant_to_half(self, node: Any) -> None:  # noqa: ANN401
        if node.op_type != "Constant":
            return
        value = node.attribute[0].t
        if value.data_type == _FLOAT:
            value.CopyFrom(self._half_tensor(value, value.name))

    def _half_weight(self, name: str) -> str:
        if name not in self.made:
            self.made[name] = f"{name}_half"
            self.graph.initializer.append(self._half_tensor(self.weights[name], self.made[name]))
        return self.made[name]

    def _half_tensor(self, tensor: Any, name: str) -> Any:  # noqa: ANN401
        values = np.clip(self.onnx.numpy_helper.to_array(tensor), -_LARGEST, _LARGEST)
        return self.onnx.numpy_helper.from_array(values.astype(np.float16), name)

    def _cast(self, source: str, target: str, kind: int) -> str:
        if target not in self.casts:
            self.casts[target] = self.onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)
        return target

    def _reorder(self) -> None:
        """Each cast directly after the node that makes its input, or first if that is an input of the graph."""
        by_source: dict[str, list[Any]] = {}
        for cast in self.casts.values():
            by_source.setdefault(cast.input[0], []).append(cast)
        ordered: list[Any] = _taken(by_source, [each.name for each in self.graph.input])
        for node in self.graph.node:
            ordered += [node, *_taken(by_source, node.output)]
        copies = [self.onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _drop_unused_weights(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        kept = [each for each in self.graph.initializer if each.name in used]
        copies = [self.onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
        del self.graph.initializer[:]
        self.graph.initializer.extend(copies)


def _taken(by_source: dict[str, list[Any]], names: Iterable[str]) -> list[Any]:
    return [cast for name in names for cast in by_source.get(name, ())]
