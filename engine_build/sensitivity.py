"""Which layers bear eight bits: each is measured alone, then as few as need be are left out.

All layers that read one tensor are one group: they share its scale. The error of a choice is WAPE-to-FP32, the sum of
|forecast - FP32 forecast| over the sum of |FP32 forecast|, on some calibration rows. One graph with a switch and a scale per
group serves every measurement, so a trial costs a run and no compilation. Few rows give the order in which groups are left
out, all of them the error that a choice is taken by; what was measured once isn't measured again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from engine_build.nodes import put_behind
from engine_build.onnx_run import Columns, FloatArray, OnnxRun, spread
from engine_build.qdq import Layer, value_scale, weight_scales
from engine_build.ranges import Method
from schemas.contract import FORECAST

ROUGH_ROWS: Final = 64
"""Enough to say which group errs more than another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Layers in eight bits (`kept`) and left out (`left`: node name -> WAPE-to-FP32 with its group alone in eight bits, roughly).

    error: WAPE-to-FP32 of the choice; error_of_all: with every layer in eight bits. trials: how many the bisection took.
    """

    kept: tuple[Layer, ...]
    left: Mapping[str, float]
    error: float
    error_of_all: float
    trials: int


def wape_to(reference: FloatArray, forecast: FloatArray) -> float:
    """Sum of |forecast - reference| / sum of |reference| over all rows, days and quantiles."""
    total = float(np.abs(reference).sum(dtype=np.float64))
    error = float(np.abs(forecast.astype(np.float64) - reference).sum())
    if not np.isfinite(error):
        return float("inf")
    return error / total if total else (0.0 if error == 0.0 else float("inf"))


class Switches:
    """`model` with every layer's eight bits behind a switch. columns: the rows that errors are measured on."""

    def __init__(self, model: onnx.ModelProto, layers: Sequence[Layer], columns: Columns) -> None:
        self.groups: tuple[str, ...] = tuple(dict.fromkeys(layer.values for layer in layers))
        self.layers = tuple(layers)
        self.trials = 0
        self._run = OnnxRun(_switched(model, layers, self.groups))
        self._rows = {False: columns, True: spread(columns, ROUGH_ROWS)}
        self._references = {rough: self._forecast((), {}, rough=rough) for rough in self._rows}
        self._known: dict[tuple[bool, tuple[tuple[str, float], ...]], float] = {}

    def error(self, groups: Collection[str], largest: Mapping[str, float], *, rough: bool = False) -> float:
        """WAPE-to-FP32 with `groups` in eight bits, their values' scales from `largest`. rough: on `ROUGH_ROWS` rows only."""
        key = (rough, tuple((name, largest.get(name, 0.0)) for name in self.groups if name in groups))
        if key not in self._known:
            self.trials += 1
            self._known[key] = wape_to(self._references[rough], self._forecast(groups, largest, rough=rough))
        return self._known[key]

    def _forecast(self, groups: Collection[str], largest: Mapping[str, float], *, rough: bool) -> FloatArray:
        on = np.array([name in groups for name in self.groups], np.bool_)
        scales = np.array([value_scale(largest.get(name, 0.0)) for name in self.groups], np.float32)
        feeds = {**self._rows[rough], _SWITCHES: on, _SCALES: scales}
        return self._run.values([FORECAST], feeds)[0]  # type: ignore[arg-type]


_SWITCHES = "eight_bit_switches"
_SCALES = "eight_bit_scales"


def choices(
    switches: Switches, largest: Mapping[Method, Mapping[str, float]], *, most_error: float, most_trials: int = 200
) -> dict[Method, Choice]:
    """By calibration method, the layers that may stay in eight bits so that WAPE-to-FP32 is at most `most_error`.

    largest: each method's ranges. Groups are left out by falling error of their own, with the ranges of the method that errs
    least with all of them; how many is found by bisection for each method. With more groups than `most_trials`, neighbours
    are measured together.
    """
    whole = {
        method: switches.error(switches.groups, found) if switches.groups else 0.0 for method, found in largest.items()
    }
    alone: dict[str, float] = {}
    if max(whole.values()) > most_error:
        alone = _alone(switches, largest[min(whole, key=lambda method: whole[method])], most_trials)
    return {method: _choice(switches, found, whole[method], alone, most_error) for method, found in largest.items()}


def _choice(
    switches: Switches, largest: Mapping[str, float], whole: float, alone: Mapping[str, float], most_error: float
) -> Choice:
    """As few groups left out as need be. whole: the error with all of them; alone: of each by itself."""
    trials = switches.trials
    order = sorted(alone, key=lambda name: -alone[name])
    few, many = 0, len(order)
    errors = {0: whole, many: 0.0 if order else whole}
    while whole > most_error and many - few > 1:
        middle = (few + many) // 2
        errors[middle] = switches.error(order[middle:], largest)
        few, many = (few, middle) if errors[middle] <= most_error else (middle, many)
    dropped = frozenset(order[: many if whole > most_error else 0])
    return Choice(
        kept=tuple(layer for layer in switches.layers if layer.values not in dropped),
        left={layer.node: alone[layer.values] for layer in switches.layers if layer.values in dropped},
        error=errors[len(dropped)],
        error_of_all=whole,
        trials=switches.trials - trials,
    )


def _alone(switches: Switches, largest: Mapping[str, float], most_trials: int) -> dict[str, float]:
    """The error of each group by itself, roughly."""
    together = -(-len(switches.groups) // most_trials)
    errors: dict[str, float] = {}
    for start in range(0, len(switches.groups), together):
        part = switches.groups[start : start + together]
        errors |= dict.fromkeys(part, switches.error(part, largest, rough=True))
    return errors


def _switched(model: onnx.ModelProto, layers: Sequence[Layer], groups: Sequence[str]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = _SwitchWriter(result.graph, groups)
    nodes = {node.name: node for node in result.graph.node}
    for layer in layers:
        node = nodes[layer.node]
        values, weights = writer.values(layer), writer.weights(layer)
        for place, name in enumerate(node.input[:2]):
            node.input[place] = values if name == layer.values else weights
    writer.place()
    return result


class _SwitchWriter:
    """Where(switch, eight bits, float) behind tensors; the switch and the scale of a group are inputs of the graph."""

    def __init__(self, graph: onnx.GraphProto, groups: Sequence[str]) -> None:
        self._graph = graph
        self._place = {name: place for place, name in enumerate(groups)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._made: set[str] = set()
        self._first: list[onnx.NodeProto] = []
        self._after: dict[str, list[onnx.NodeProto]] = {}
        for name, kind in ((_SWITCHES, onnx.TensorProto.BOOL), (_SCALES, onnx.TensorProto.FLOAT)):
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [len(groups)]))
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "eight_bit_zero"))

    def values(self, layer: Layer) -> str:
        """What a layer reads instead of its values."""
        stem = layer.values
        if f"{stem}_switched" not in self._made:
            self._made.add(f"{stem}_switched")
            place = f"{stem}_place"
            self._graph.initializer.append(onnx.numpy_helper.from_array(np.array(self._place[stem], np.int64), place))
            make = onnx.helper.make_node
            self._first += [
                make("Gather", [_SWITCHES, place], [f"{stem}_on"]),
                make("Gather", [_SCALES, place], [f"{stem}_scale"]),
            ]
            self._after[stem] = self._pair(stem, stem, "eight_bit_zero", {})
        return f"{stem}_switched"

    def weights(self, layer: Layer) -> str:
        """What a layer reads instead of its weights."""
        stem = f"{layer.weights}_of_{layer.node}"
        array = onnx.numpy_helper.to_array(self._constants[layer.weights])
        scales = weight_scales(array, layer.axis)
        self._graph.initializer.append(onnx.numpy_helper.from_array(scales, f"{stem}_scale"))
        self._graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(scales.shape, np.int8), f"{stem}_zero"))
        self._first += [onnx.helper.make_node("Identity", [f"{layer.values}_on"], [f"{stem}_on"])]
        self._first += self._pair(stem, layer.weights, f"{stem}_zero", {"axis": layer.axis})
        return f"{stem}_switched"

    @staticmethod
    def _pair(stem: str, source: str, zero: str, attributes: Mapping[str, Any]) -> list[onnx.NodeProto]:
        make = onnx.helper.make_node
        operands = [f"{stem}_scale", zero]
        return [
            make("QuantizeLinear", [source, *operands], [f"{stem}_q"], **attributes),
            make("DequantizeLinear", [f"{stem}_q", *operands], [f"{stem}_dq"], **attributes),
            make("Where", [f"{stem}_on", f"{stem}_dq", source], [f"{stem}_switched"]),
        ]

    def place(self) -> None:
        """Put what was made where its inputs are known."""
        put_behind(self._graph, self._after, self._first)
