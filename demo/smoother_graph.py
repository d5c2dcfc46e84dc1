"""The smoother as an ONNX graph: plain operators of opset 17 that ONNX Runtime and TensorRT both take.

The lines follow `smoother.median_and_spread` one by one; a property test holds both to the same numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from demo.series import HORIZON_DAYS
from demo.smoother import INPUTS, LEVEL_BOUNDS, QUANTILES, SKIPPED_DAYS, TINY, WEEKS, Constants

OPSET: Final = 17
_IR_VERSION: Final = 8  # the oldest that holds opset 17, so that older runtimes load it


class _Builder:
    """Collects nodes and constants. Every method adds one node and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def op(self, kind: str, *inputs: str | float, output: str | None = None, **attributes: int) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [result], f"{result}_node", None, None, None, **attributes))
        return result

    def columns(self, value: str, start: int, end: int) -> str:
        """Columns [start, end) of a matrix."""
        return self.op("Slice", value, *(self.constant([n], np.int64) for n in (start, end, 1)))

    def sum(self, value: str, *axes: int) -> str:
        return self.op("ReduceSum", value, self.constant(axes, np.int64), keepdims=1)

    def extreme(self, kind: str, value: str) -> str:
        """Largest or smallest over the weeks, which is axis 1."""
        node = helper.make_node(kind, [value], [f"{kind.lower()}_{len(self.nodes)}"], axes=[1], keepdims=1)
        self.nodes.append(node)
        return str(node.output[0])

    def weeks(self, value: str) -> str:
        return self.op("Reshape", value, self.constant([-1, WEEKS, 7], np.int64))

    def complement(self, value: str) -> str:
        return self.op("Sub", 1.0, value)

    def public_share(self, holiday: str) -> str:
        return self.op("Relu", self.op("Sub", self.op("Mul", holiday, 2.0), 1.0))


def graph_of(constants: Constants, *, name: str) -> onnx.ModelProto:
    """The model: inputs named after event fields float32[batch, n], output `forecast` float32[batch, 14, 3]."""
    b = _Builder()
    middle, spread = _median_and_spread(b, constants)
    low = b.op("Relu", b.op("Sub", middle, b.op("Mul", spread, b.constant([constants.lower]))))
    high = b.op("Add", middle, b.op("Mul", spread, b.constant([constants.upper])))
    last_axis = b.constant([2], np.int64)
    b.op("Concat", *(b.op("Unsqueeze", value, last_axis) for value in (low, middle, high)), output="forecast", axis=2)
    return _model(b, name)


def _median_and_spread(b: _Builder, c: Constants) -> tuple[str, str]:
    public = b.public_share(b.columns("holiday", SKIPPED_DAYS, SKIPPED_DAYS + 7 * WEEKS))
    public_next = b.public_share("holiday_next")
    following = b.op("Concat", b.columns(public, 1, 7 * WEEKS), b.columns(public_next, 0, 1), axis=1)
    first_next = b.columns(public_next, 0, 1)
    nothing = b.op("Sub", first_next, first_next)
    following_next = b.op("Concat", b.columns(public_next, 1, HORIZON_DAYS), nothing, axis=1)
    sales = b.columns("sales", SKIPPED_DAYS, SKIPPED_DAYS + 7 * WEEKS)
    usual = b.weeks(b.op("Div", sales, _eve_factor(b, c, following, public)))
    open_share = b.weeks(b.complement(public))

    profile = _profile(b, c, usual, open_share)  # [batch, 1, 7], as all that follows
    typical = b.op("Div", b.sum(profile, 2), 7.0)
    level = _level(b, c, usual, open_share, profile, typical)
    scale = b.op("Sqrt", b.op("Add", b.op("Mul", profile, typical), TINY))
    error = _error(b, c, usual, open_share, profile, scale)

    ahead = _fortnight(b, b.op("Mul", profile, level))
    damped = b.complement(b.op("Mul", public_next, 1.0 - c.holiday_factor))
    middle = b.op("Mul", b.op("Mul", ahead, _eve_factor(b, c, following_next, public_next)), damped)
    holidays = b.op("Mul", b.op("Mul", public_next, ahead), c.holiday_spread)
    return middle, b.op("Add", _fortnight(b, b.op("Mul", scale, error)), holidays)


def _eve_factor(b: _Builder, c: Constants, following: str, public: str) -> str:
    return b.op("Exp", b.op("Mul", b.op("Mul", following, b.complement(public)), c.eve))


def _profile(b: _Builder, c: Constants, usual: str, open_share: str) -> str:
    weights = b.op("Mul", open_share, b.constant(np.reshape(c.week_weights, (1, WEEKS, 1))))
    mean = b.op("Div", b.sum(b.op("Mul", weights, usual), 1), b.op("Max", b.sum(weights, 1), 1e-3))
    closed = b.op("Mul", b.complement(open_share), mean)
    filled = b.op("Add", b.op("Mul", open_share, usual), closed)
    extremes = b.op("Add", b.extreme("ReduceMax", filled), b.extreme("ReduceMin", filled))
    half_median = b.op("Mul", b.op("Sub", b.sum(filled, 1), extremes), 0.5 * c.median_share)
    return b.op("Add", half_median, b.op("Mul", mean, 1.0 - c.median_share))


def _level(b: _Builder, c: Constants, usual: str, open_share: str, profile: str, typical: str) -> str:
    recency = b.op("Mul", open_share, b.constant(c.recency[None]))
    pull = b.op("Add", b.op("Mul", typical, c.level_shrink), TINY)
    seen = b.op("Add", b.sum(b.op("Mul", recency, usual), 1, 2), pull)
    expected = b.op("Add", b.sum(b.op("Mul", recency, profile), 1, 2), pull)
    bounded = b.op("Clip", b.op("Div", seen, expected), *LEVEL_BOUNDS)
    return b.op("Pow", bounded, c.level_power)


def _error(b: _Builder, c: Constants, usual: str, open_share: str, profile: str, scale: str) -> str:
    difference = b.op("Sub", usual, profile)
    residual = b.sum(b.op("Mul", open_share, b.op("Mul", difference, difference)), 1, 2)
    relative = b.op("Div", residual, b.sum(b.op("Mul", scale, scale), 2))
    days = b.op("Div", b.sum(open_share, 1, 2), 7.0)
    prior = c.spread_shrink / 7
    numerator = b.op("Add", relative, prior * c.spread**2)
    return b.op("Sqrt", b.op("Div", numerator, b.op("Add", days, prior)))


def _fortnight(b: _Builder, week: str) -> str:
    return b.op("Reshape", b.op("Concat", week, week, axis=1), b.constant([-1, HORIZON_DAYS], np.int64))


def _model(b: _Builder, name: str) -> onnx.ModelProto:
    def tensor(tensor_name: str, *sizes: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor_name, TensorProto.FLOAT, ["batch", *sizes])

    graph = helper.make_graph(
        b.nodes,
        name,
        [tensor(field, width) for field, width in INPUTS.items()],
        [tensor("forecast", HORIZON_DAYS, len(QUANTILES))],
        initializer=b.constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="forecast-worker-demo")
    onnx.checker.check_model(model, full_check=True)
    return model
