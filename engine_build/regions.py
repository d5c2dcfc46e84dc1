"""Which part of a graph may compute in half precision, found from the graph and from values measured inside it.

Two questions. *What is worth it?* The body: every node between the first and the last layer with weights, as that is where
the time goes. What comes before (scaling, calendar) and after (the way back to units) stays in FP32. *What bears it?* Each
node is run a second time on true values rounded to float16 (its shadow, in the same pass over calibration rows). A node whose
shadow is off takes no half precision: weekdays from days since 1970, differences of large numbers, overflow. What feeds such
a node stays in FP32, too, unless most of the weights lie before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_build.onnx_run import Columns, OnnxRun

LAYERS: Final = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum"})

_SMALLEST_SHARE: Final = 1e-4
"""Of all weights; a layer with less is arithmetic, such as a table of seven weekdays."""

_ENTRANCE_SHARE: Final = 0.05
"""Of all weights; what feeds a node that takes no half precision is left in FP32 while it holds less than this."""

_TIED_TO_FLOAT: Final = frozenset(
    {"Cast", "CastLike", "ConstantOfShape", "EyeLike", "OneHot", "Range", "Resize", "If", "Loop", "Scan"}
    | {"QuantizeLinear", "DequantizeLinear", "RandomUniform", "RandomNormal"}
)
"""Operators whose type is an attribute, or that hold graphs: casting what surrounds them would contradict them."""

_MOVING: Final = frozenset({"Gather", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Expand"})
"""Operators that move values without computing: their rounding is that of whoever reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """nodes: names of those that may compute in half precision.

    layers: those with weights among them. left: nodes of the body that may not -> the relative error of their shadow
    (infinite: overflow; NaN: named by the caller, or before such a node).
    """

    nodes: frozenset[str]
    layers: tuple[str, ...]
    left: Mapping[str, float]


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own; names that are there already stay."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    taken: set[str] = set()
    for place, node in enumerate(result.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
    return result


def half_region(
    model: onnx.ModelProto, columns: Columns, *, keep_fp32: Sequence[str] = (), tolerance: float = 1e-2
) -> Region:
    """The part of `model` (with unique node names) that may compute in half precision.

    columns: some hundred calibration rows. keep_fp32: patterns (as of the shell) of node names that stay in FP32 anyway.
    tolerance: of a shadow's mean error relative to the mean size of the node's true values; float16 itself gives about 3e-4.
    """
    net = _Net(model.graph)
    body = net.body()
    errors = shadow_errors(model, columns, body)
    left = {name: error for name, error in errors.items() if not error <= tolerance}
    left |= {name: float("nan") for name in body if any(fnmatchcase(name, pattern) for pattern in keep_fp32)}
    for name in tuple(left):
        before = net.before(name)
        if net.weight(before) < _ENTRANCE_SHARE * net.weight(body):
            left |= {each: float("nan") for each in before & body if each not in left}
    nodes = body - left.keys()
    return Region(
        nodes=frozenset(nodes | net.constants_only_for(nodes)),
        layers=tuple(node.name for node in net.layers if node.name in nodes),
        left=left,
    )


def shadow_errors(model: onnx.ModelProto, columns: Columns, names: Iterable[str]) -> dict[str, float]:
    """Node name -> mean |shadow - true| / mean |true| on the rows of `columns`, for computing nodes among `names`.

    The shadow takes float16-rounded inputs and weights, computes in FP32 and rounds its result to float16.
    """
    wanted = frozenset(names)
    shadowed = _Shadows(model, wanted)
    if not shadowed.pairs:
        return {}
    run = OnnxRun(shadowed.model, optimised=False)
    values = run.values([name for _, true, shadow in shadowed.pairs for name in (true, shadow)], columns)
    errors: dict[str, float] = {}
    for (node, _, _), true, shadow in zip(shadowed.pairs, values[::2], values[1::2], strict=True):
        errors[node] = max(errors.get(node, 0.0), _relative_error(true, shadow))
    return errors


def _relative_error(true: NDArray[np.float32], shadow: NDArray[np.float32]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = shadow.astype(np.float16).astype(np.float64)
        error = float(np.abs(rounded - true).mean()) if true.size else 0.0
    size = float(np.abs(true).mean(dtype=np.float64)) if true.size else 0.0
    if not np.isfinite(error):
        return float("inf")
    if size == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / size


class _Net:
    """Who feeds whom in a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self._maker = {name: node.name for node in graph.node for name in node.output}
        self._readers: dict[str, list[str]] = {}
        for node in graph.node:
            for name in node.input:
                if name in self._maker:
                    self._readers.setdefault(self._maker[name], []).append(node.name)
        self._sizes = _weight_sizes(graph)
        heavy = [(node, self._size(node)) for node in graph.node if node.op_type in LAYERS]
        least = _SMALLEST_SHARE * sum(size for _, size in heavy)
        self.layers = [node for node, size in heavy if size > 0 and size >= least]

    def _size(self, node: onnx.NodeProto) -> int:
        return sum(self._sizes.get(name, 0) for name in node.input)

    def weight(self, names: Iterable[str]) -> int:
        """Number of weights of the layers among `names`."""
        chosen = frozenset(names)
        return sum(self._size(node) for node in self.layers if node.name in chosen)

    def body(self) -> frozenset[str]:
        """Nodes with a layer before (or in) them and one after (or in) them, less those tied to float."""
        layers = [node.name for node in self.layers]
        after, before = self._closure(layers, self._after), self._closure(layers, self._before)
        return frozenset(name for name in after & before if self.nodes[name].op_type not in _TIED_TO_FLOAT)

    def before(self, name: str) -> frozenset[str]:
        """Every node whose values reach `name`, without it."""
        return frozenset(self._closure([name], self._before) - {name})

    def constants_only_for(self, nodes: Iterable[str]) -> frozenset[str]:
        """Constant nodes that nobody but `nodes` reads."""
        chosen = frozenset(nodes)
        return frozenset(
            name
            for name, node in self.nodes.items()
            if node.op_type == "Constant" and name in self._readers and chosen.issuperset(self._readers[name])
        )

    def _before(self, name: str) -> Iterator[str]:
        return (self._maker[each] for each in self.nodes[name].input if each in self._maker)

    def _after(self, name: str) -> Iterator[str]:
        return iter(self._readers.get(name, ()))

    @staticmethod
    def _closure(starts: Iterable[str], step: object) -> set[str]:
        found: set[str] = set()
        waiting = list(starts)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(step(name))  # type: ignore[operator]
        return found


def _weight_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Constant float tensor -> number of values: initialisers, or Constant nodes where a graph has no float initialisers."""
    sizes = {
        tensor.name: int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
    }
    if sizes:
        return sizes
    return {
        node.output[0]: int(np.prod(node.attribute[0].t.dims))
        for node in graph.node
        if node.op_type == "Constant" and len(node.attribute[0].t.dims) > 1
    }


class _Shadows:
    """A model with shadows. pairs: node name, true output, shadow's output."""

    def __init__(self, model: onnx.ModelProto, names: frozenset[str]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        typed = [*inferred.value_info, *inferred.input, *inferred.output, *()]
        self._floats = {each.name for each in typed if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        self._floats |= {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
        self._rounded: dict[str, str] = {}
        self._added: list[onnx.NodeProto] = []
        self.pairs: list[tuple[str, str, str]] = []
        for node in model.graph.node:
            if node.name in names and node.op_type not in _MOVING:
                self._add(node)
        graph = self.model.graph
        graph.node.extend(self._added)
        del graph.output[:]
        for name in dict.fromkeys(name for _, true, shadow in self.pairs for name in (true, shadow)):
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))

    def _add(self, node: onnx.NodeProto) -> None:
        outputs = [name for name in node.output if name in self._floats]
        if not outputs:
            return
        shadow = onnx.NodeProto()
        shadow.CopyFrom(node)
        shadow.name = f"{node.name}__shadow"
        del shadow.input[:]
        shadow.input.extend(self._round(name) if name in self._floats else name for name in node.input)
        del shadow.output[:]
        shadow.output.extend(f"{name}__shadow" if name else "" for name in node.output)
        self._added.append(shadow)
        self.pairs += [(node.name, name, f"{name}__shadow") for name in outputs]

    def _round(self, name: str) -> str:
        if name not in self._rounded:
            half, rounded = f"{name}__half", f"{name}__rounded"
            self._added.append(onnx.helper.make_node("Cast", [name], [half], to=onnx.TensorProto.FLOAT16))
            self._added.append(onnx.helper.make_node("Cast", [half], [rounded], to=onnx.TensorProto.FLOAT))
            self._rounded[name] = rounded
        return self._rounded[name]
