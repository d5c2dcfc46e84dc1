"""Small ONNX graphs that tests of engine_build check, cast and quantise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOATS = {"type": "array", "items": "float"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Features",
    "fields": [
        {"name": "sales", "type": FLOATS},
        {"name": "promo", "type": FLOATS, "default": [0.0] * 8},
        {"name": "as_of", "type": "int"},
    ],
}
HORIZON, QUANTILES = 2, 3


def saved(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    onnx.save(model, str(folder / name))
    return folder / name


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    weights: dict[str, NDArray[Any]],
    *,
    opset: int = 17,
    output: tuple[str, list[Any]] = ("forecast", ["batch", HORIZON, QUANTILES]),
    domains: tuple[str, ...] = (),
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def network(*, middle: str = "Relu", sharp: bool = False, opset: int = 17) -> ModelProto:
    """sales[8] and as_of -> scaling, weekday, two layers, back to units: forecast[2, 3].

    The weekday is as_of - 7 * floor(as_of / 7), which no half precision bears, and one layer lies before it if `sharp`.
    """
    random = np.random.default_rng(3)
    weights: dict[str, NDArray[Any]] = {
        "small": np.float32(0.01) * np.ones((), np.float32),
        "seven": np.array(7.0, np.float32),
        "axis": np.array([1], np.int64),
        "first": random.normal(size=(9, 32)).astype(np.float32) / 3,
        "second": random.normal(size=(32, 6)).astype(np.float32) / 6,
        "large": np.array(100.0, np.float32),
        "shape": np.array([-1, HORIZON, QUANTILES], np.int64),
        "unit": np.ones((1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["sales", "small"], ["scaled"], name="scale"),
        helper.make_node("Unsqueeze", ["as_of", "axis"], ["raw_day"], name="day"),
        helper.make_node("MatMul", ["raw_day", "unit"], ["column"], name="day_layer")
        if sharp
        else helper.make_node("Identity", ["raw_day"], ["column"], name="day_layer"),
        helper.make_node("Div", ["column", "seven"], ["weeks"], name="weeks"),
        helper.make_node("Floor", ["weeks"], ["whole"], name="whole"),
        helper.make_node("Mul", ["whole", "seven"], ["monday"], name="monday"),
        helper.make_node("Sub", ["column", "monday"], ["weekday"], name="weekday"),
        helper.make_node("Concat", ["scaled", "weekday"], ["tokens"], name="tokens", axis=1),
        helper.make_node("MatMul", ["tokens", "first"], ["hidden"], name="first_layer"),
        helper.make_node(middle, ["hidden"], ["positive"], name="middle"),
        helper.make_node("MatMul", ["positive", "second"], ["found"], name="second_layer"),
        helper.make_node("Mul", ["found", "large"], ["units"], name="units"),
        helper.make_node("Reshape", ["units", "shape"], ["forecast"], name="out"),
    ]
    return model_of(nodes, {"sales": ["batch", 8], "as_of": ["batch"]}, weights, opset=opset)


def rows(count: int = 300, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        "sales": random.uniform(0, 100, (count, 8)).astype(np.float32),
        "as_of": random.integers(17_000, 20_000, count).astype(np.float32),
    }


def ensemble(members: int = 2, *, hidden: int = 32, joined: str = "Concat") -> ModelProto:
    """Members of two layers each over the same scaled sales, and the mean of what they find: forecast[2, 3].

    joined: "Concat" (all at once) or "Add" (one after the other).
    """
    random = np.random.default_rng(7)
    make = helper.make_node
    weights: dict[str, NDArray[Any]] = {
        "small": np.array(0.01, np.float32),
        "share": np.array(1 / members, np.float32),
        "shape": np.array([-1, 1, HORIZON, QUANTILES], np.int64),
    }
    nodes = [make("Mul", ["sales", "small"], ["scaled"], name="scale")]
    for each in range(members):
        weights[f"first_{each}"] = random.normal(size=(8, hidden)).astype(np.float32) / 3
        weights[f"second_{each}"] = random.normal(size=(hidden, HORIZON * QUANTILES)).astype(np.float32) / 6
        nodes += [
            make("MatMul", ["scaled", f"first_{each}"], [f"hidden_{each}"], name=f"first_layer_{each}"),
            make("Relu", [f"hidden_{each}"], [f"positive_{each}"], name=f"middle_{each}"),
            make("MatMul", [f"positive_{each}", f"second_{each}"], [f"found_{each}"], name=f"second_layer_{each}"),
            make("Reshape", [f"found_{each}", "shape"], [f"member_{each}"], name=f"out_{each}"),
        ]
    if joined == "Concat":
        nodes.append(make("Concat", [f"member_{each}" for each in range(members)], ["all"], name="all", axis=1))
        nodes.append(make("ReduceMean", ["all"], ["forecast"], name="mean", axes=[1], keepdims=0))
        return model_of(nodes, {"sales": ["batch", 8]}, weights)
    total = "member_0"
    for each in range(1, members):
        nodes.append(make("Add", [total, f"member_{each}"], [f"total_{each}"], name=f"total_{each}"))
        total = f"total_{each}"
    nodes.append(make("ReduceSum", [total, "axis"], ["sum"], name="sum", keepdims=0))
    nodes.append(make("Mul", ["sum", "share"], ["forecast"], name="mean"))
    return model_of(nodes, {"sales": ["batch", 8]}, weights | {"axis": np.array([1], np.int64)})
