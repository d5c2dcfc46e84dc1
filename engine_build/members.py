"""Members of an ensemble, one after the other instead of side by side, so that a plan holds the values of one at a time.

A builder runs networks that don't need each other together, whatever its number of streams: it even joins their products into
one. That takes the memory of all. Here every member but the first waits for the one before: a zero that is only known once that
one is done is subtracted from what the member reads. No number changes by it (docs/adr/0019).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_build.nodes import set_nodes
from engine_build.regions import LAYERS, named
from schemas.engine_card import Precision

Members = Literal["auto", "together", "in-turn"]
"""auto: in turn at INT8, which is chosen for its memory, unless the networks are recurrent; else together, which was faster for some
batches."""

_LEAST_SHARE: Final = 0.1
"""Of all weights: what holds less isn't worth waiting for."""

_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
"""Their steps are short and many: how much longer several take in turn hasn't been measured."""

_PAIR: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A member of an ensemble that waits. after: the tensor that the member before it ends in. entries: places of its nodes, and of
    their inputs, that read what is made outside of it, on the way to its layers.
    """

    after: str
    entries: tuple[tuple[int, int], ...]


def arranged(graph: bytes, precision: Precision, members: Members = "auto") -> bytes:
    """An ONNX graph to build a plan of `precision` from: `graph` itself, or with its members in turn."""
    if members == "together" or (members == "auto" and precision != "int8"):
        return graph
    model = onnx.load_model_from_string(graph)
    if members == "auto" and any(node.op_type in _RECURRENT for node in model.graph.node):
        return graph
    turned, waiting = in_turn(model)
    if not waiting:
        return graph
    onnx.checker.check_model(turned, full_check=True)
    content: bytes = turned.SerializeToString()
    return content


def in_turn(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A copy of `model`, at whatever precision, in which members of an ensemble run one after the other; and how many wait.

    Members are what flows into one node by separate ways, each with a tenth of all weights or more and with one layer behind another: a
    single layer, as those of attention's queries and keys, is no network. Every value in the graph is the same as before, to the
    bit. A graph without members is returned as it is.
    """
    result = named(model)
    if any(attribute.g.node or attribute.graphs for node in result.graph.node for attribute in node.attribute):
        return model, 0  # a branch may read what an outer node makes without saying so
    count = 0
    while True:
        flow = _Flow(result)
        found = next(filter(None, _ensembles(flow)), ())
        if not found:
            return (result, count) if count else (model, 0)
        _delay(result.graph, flow, found)
        count += len(found)


class _Flow:
    """Who feeds whom. Sets of nodes are integers with a bit for each. floats: tensors in floating point -> their type."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes = graph.node
        self.floats = _float_tensors(model)
        self.maker = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
        self.constant = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
        """Tensors that no input of the graph reaches, and how many values the largest of what they are made of has."""
        self.before = [0] * len(graph.node)
        self.weights: dict[int, int] = {}
        for place, node in enumerate(graph.node):
            if all(name in self.constant for name in node.input if name):
                self.constant |= dict.fromkeys(node.output, self._size(node))
            for name in node.input:
                if name in self.maker and name not in self.constant:
                    self.before[place] |= self.up_to(name)
            size = sum(self.constant.get(name, 0) for name in node.input)
            if node.op_type in LAYERS and size and not self.constant.keys() >= {*node.output}:
                self.weights[place] = size
        self.least = _LEAST_SHARE * sum(self.weights.values())

    def _size(self, node: onnx.NodeProto) -> int:
        """Values of what a constant node makes, or, whatever it does to them, of the largest that it is made of."""
        own = (int(np.prod(each.t.dims)) for each in node.attribute if each.HasField("t"))
        return max((*own, *(self.constant[name] for name in node.input if name)), default=0)

    def up_to(self, tensor: str) -> int:
        """The node that makes `tensor` and all that it needs; none for an input of the graph."""
        place = self.maker.get(tensor)
        return 0 if place is None else self.before[place] | 1 << place

    def layers(self, nodes: int) -> list[int]:
        """The layers with weights among `nodes`."""
        return [place for place in self.weights if nodes >> place & 1]

    def behind_pairs(self, name: str) -> tuple[str, list[onnx.NodeProto]]:
        """Where `name` comes out of pairs of QuantizeLinear and DequantizeLinear: what goes into them, and their nodes in order. Else
        `name` itself, and none.
        """
        pairs: list[onnx.NodeProto] = []
        while name in self.maker and self.nodes[self.maker[name]].op_type in _PAIR:
            pairs.insert(0, self.nodes[self.maker[name]])
            name = pairs[0].input[0]
        return name, pairs

    def is_network(self, nodes: int) -> bool:
        """Whether `nodes` hold enough of the weights, one layer behind another."""
        found = self.layers(nodes)
        is_heavy = sum(self.weights[place] for place in found) >= self.least > 0
        return is_heavy and any(self.before[later] >> place & 1 for later in found for place in found)


def _ensembles(flow: _Flow) -> Iterator[tuple[Waiting, ...]]:
    """For each node, in order: the members of an ensemble that flow into it and have to wait, in order. Once they do, there is
    only one way left, and the node has none any more.
    """
    for node in flow.nodes:
        ways = {name: flow.up_to(name) for name in dict.fromkeys(node.input) if name and name not in flow.constant}
        own = {name: _alone(name, ways) for name in ways}
        ends = [name for name in own if flow.is_network(own[name])]
        found = [
            Waiting(after=first, entries=tuple(_entries(flow, own[second])))
            for first, second in itertools.pairwise(ends)
            if first in flow.floats
        ]
        yield tuple(each for each in found if each.entries)


def _alone(name: str, ways: dict[str, int]) -> int:
    """The nodes that only this one of several ways goes through."""
    shared = 0
    for other, nodes in ways.items():
        shared |= nodes if other != name else 0
    return ways[name] & ~shared


def _entries(flow: _Flow, own: int) -> Iterator[tuple[int, int]]:
    """Where a member reads what is made outside of it, on the way to its layers, in a type that zero can be subtracted from."""
    leading = 0
    for place in flow.layers(own):
        leading |= flow.before[place] | 1 << place
    for place, node in enumerate(flow.nodes):
        if not (own & leading) >> place & 1:
            continue
        for position, name in enumerate(node.input):
            outside = name and name not in flow.constant and not own >> flow.maker.get(name, len(flow.nodes)) & 1
            if outside and flow.behind_pairs(name)[0] in flow.floats:
                yield place, position


def _float_tensors(model: onnx.ModelProto) -> dict[str, int]:
    """Tensors in floating point -> their type."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    typed = (*graph.input, *graph.value_info, *graph.output)
    kinds = {each.name: each.type.tensor_type.elem_type for each in typed}
    return {name: kind for name, kind in kinds.items() if kind in _FLOATS}


def _delay(graph: onnx.GraphProto, flow: _Flow, members: Sequence[Waiting]) -> None:
    """Make members wait, in place."""
    added: list[onnx.NodeProto] = []
    for member in members:
        writer = _Writer(_unused_stem(graph, added))
        zero = writer.zero(member.after, flow.floats[member.after])
        for place, position in member.entries:
            node = graph.node[place]
            node.input[position] = _behind_zero(flow, writer, node.input[position], zero)
        added += writer.nodes
    _sort(graph, added)


def _unused_stem(graph: onnx.GraphProto, added: Sequence[onnx.NodeProto]) -> str:
    """What no name of a node or tensor begins with."""
    taken = {each.name for each in (*graph.input, *graph.initializer)}
    taken |= {name for node in (*graph.node, *added) for name in (node.name, *node.output)}
    stems = (f"waiting_{number}" for number in itertools.count())
    return next(stem for stem in stems if not any(name.startswith(stem) for name in taken))


def _behind_zero(flow: _Flow, writer: _Writer, name: str, zero: str) -> str:
    """`name` less zero, before it is quantised, if it is: then the pair is written a second time behind the difference."""
    source, pairs = flow.behind_pairs(name)
    found = writer.difference(source, zero, flow.floats[source])
    for node in pairs:
        found = writer.again(node, found)
    return found


class _Writer:
    """Makes nodes whose names begin with `stem`, each of them once."""

    def __init__(self, stem: str) -> None:
        self._stem = stem
        self._made: dict[tuple[str, str], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def zero(self, after: str, kind: int) -> str:
        """A scalar that is 0.0 whatever `after` holds, and that no compiler knows before: whether its largest value is greater
        than infinity. NaN isn't greater than anything, so no row of a batch reaches another by it.
        """
        infinity = numpy_helper.from_array(np.array(np.inf, np.float32))
        if kind != TensorProto.FLOAT:
            after = self._add("Cast", [after], to=TensorProto.FLOAT)
        largest = self._add("ReduceMax", [after], keepdims=0)
        never = self._add("Greater", [largest, self._add("Constant", [], value=infinity)])
        return self._add("Cast", [never], to=TensorProto.FLOAT)

    def difference(self, name: str, zero: str, kind: int) -> str:
        """`name` - `zero`, which is `name`: a sum would make a negative zero positive."""
        if (name, zero) not in self._made:
            subtrahend = zero if kind == TensorProto.FLOAT else self._add("Cast", [zero], to=kind)
            self._made[name, zero] = self._add("Sub", [name, subtrahend])
        return self._made[name, zero]

    def again(self, node: onnx.NodeProto, operand: str) -> str:
        """A copy of `node` that reads `operand` first."""
        if (node.name, operand) not in self._made:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = operand
            self._made[node.name, operand] = self._name(copy)
        return self._made[node.name, operand]

    def _add(self, kind: str, operands: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401 - as ONNX takes them
        return self._name(helper.make_node(kind, operands, [""], **attributes))

    def _name(self, node: onnx.NodeProto) -> str:
        node.name = node.output[0] = f"{self._stem}_{len(self.nodes)}"
        self.nodes.append(node)
        return node.name


def _sort(graph: onnx.GraphProto, added: Sequence[onnx.NodeProto]) -> None:
    """Put `added` into the graph and its nodes into an order in which each is known before it is read, else as they were."""
    nodes = [*graph.node, *added]
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[name] for name in node.input if name in maker} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, needed in enumerate(needs):
        for each in needed:
            readers[each].append(place)
    ready = [place for place, needed in enumerate(needs) if not needed]
    ordered: list[onnx.NodeProto] = []
    while ready:
        place = heapq.heappop(ready)
        ordered.append(nodes[place])
        for reader in readers[place]:
            needs[reader].discard(place)
            if not needs[reader]:
                heapq.heappush(ready, reader)
    if len(ordered) != len(nodes):
        raise AssertionError("members wait for each other; please report this with the graph")
    set_nodes(graph, ordered)
