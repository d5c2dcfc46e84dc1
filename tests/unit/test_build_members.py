from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from engine_build.members import arranged, in_turn
from engine_build.onnx_run import Columns, OnnxRun
from engine_build.precision import Workpiece, write_fp16, write_int8
from tests.helpers.onnx_graphs import HORIZON, QUANTILES, ensemble, model_of, network, rows, saved

ROWS = {"sales": rows()["sales"]}
MODELS = Path(__file__).parents[2] / "models"


def forecasts(model: onnx.ModelProto, columns: Columns = ROWS) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    return OnnxRun(model, optimised=False).forecasts(columns)


def before(model: onnx.ModelProto, node: str) -> set[str]:
    """Names of all nodes that have to run before `node`."""
    maker = {name: each for each in model.graph.node for name in each.output}
    waiting, found = [*next(each for each in model.graph.node if each.name == node).input], set[str]()
    while waiting:
        made_by = maker.get(waiting.pop())
        if made_by is not None and made_by.name not in found:
            found.add(made_by.name)
            waiting += made_by.input
    return found


@given(members=st.integers(2, 5), hidden=st.sampled_from([8, 32, 64]), joined=st.sampled_from(["Concat", "Add"]))
def test_every_member_waits_for_the_one_before_and_no_forecast_changes(members: int, hidden: int, joined: str) -> None:
    model = ensemble(members, hidden=hidden, joined=joined)
    turned, waiting = in_turn(model)
    assert waiting == members - 1
    for each in range(1, members):
        assert f"out_{each - 1}" in before(turned, f"first_layer_{each}")
    assert np.array_equal(forecasts(turned), forecasts(model))


def test_the_model_given_is_left_alone() -> None:
    model = ensemble()
    content = model.SerializeToString()
    assert in_turn(model)[0].SerializeToString() != content
    assert model.SerializeToString() == content


def test_one_network_waits_for_nothing() -> None:
    model = network()
    turned, waiting = in_turn(model)
    assert turned is model
    assert waiting == 0


def test_single_layers_side_by_side_are_no_networks() -> None:
    """Queries, keys and values; a gate; a trend beside a season: one layer each, in one network."""
    nodes = [
        helper.make_node("MatMul", ["sales", "query"], ["queries"], name="query_layer"),
        helper.make_node("MatMul", ["sales", "key"], ["keys"], name="key_layer"),
        helper.make_node("Sigmoid", ["keys"], ["gate"], name="gate"),
        helper.make_node("Mul", ["queries", "gate"], ["gated"], name="gated"),
        helper.make_node("Reshape", ["gated", "shape"], ["forecast"], name="out"),
    ]
    weights: dict[str, Any] = {
        "query": np.ones((8, HORIZON * QUANTILES), np.float32),
        "key": np.ones((8, HORIZON * QUANTILES), np.float32),
        "shape": np.array([-1, HORIZON, QUANTILES], np.int64),
    }
    model = model_of(nodes, {"sales": ["batch", 8]}, weights)
    assert in_turn(model) == (model, 0)


def test_names_that_are_taken_are_left_alone() -> None:
    model = ensemble()
    model.graph.node[0].output[0] = model.graph.node[0].name = "waiting_0_0"
    for node in model.graph.node:
        if node.input[0] == "scaled":
            node.input[0] = "waiting_0_0"
    turned, waiting = in_turn(model)
    assert waiting == 1
    assert np.array_equal(forecasts(turned), forecasts(model))


def test_a_negative_zero_stays_one() -> None:
    """Its inverse would be another infinity."""
    model = ensemble()
    make = helper.make_node
    scale, *others = (onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node)
    nodes = [scale, make("Mul", ["scaled", "minus_zero"], ["zeros"], name="zeros")]
    for each in range(2):
        nodes.append(make("Reciprocal", ["zeros"], [f"infinite_{each}"], name=f"inverse_{each}"))
        nodes.append(make("Clip", [f"infinite_{each}", "least", "most"], [f"signs_{each}"], name=f"sign_{each}"))
        next(node for node in others if node.name == f"first_layer_{each}").input[0] = f"signs_{each}"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    for name, value in (("minus_zero", -0.0), ("least", -2.0), ("most", 2.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
    turned, waiting = in_turn(model)
    assert waiting == 1
    assert np.array_equal(forecasts(turned), forecasts(model))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_broken_row_reaches_no_other_row(broken: float) -> None:
    turned, _ = in_turn(ensemble(3))
    columns = {"sales": ROWS["sales"].copy()}
    columns["sales"][7] = broken
    others = np.arange(len(columns["sales"])) != 7
    assert not np.isfinite(forecasts(turned, columns)[7]).all()
    assert np.array_equal(forecasts(turned, columns)[others], forecasts(turned)[others])


def test_a_graph_with_branches_is_left_as_it_is() -> None:
    model = ensemble()
    branch = helper.make_graph(
        [helper.make_node("Identity", ["scaled"], ["inner"], name="inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((), np.bool_), "always"))
    model.graph.node.append(helper.make_node("If", ["always"], ["unused"], then_branch=branch, else_branch=branch))
    assert in_turn(model) == (model, 0)


def test_weights_that_are_nodes_count_too() -> None:
    model = ensemble()
    constants = [
        helper.make_node("Constant", [], [tensor.name], name=f"{tensor.name}_node", value=tensor)
        for tensor in model.graph.initializer
    ]
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    turned, waiting = in_turn(model)
    assert waiting == 1
    assert np.array_equal(forecasts(turned), forecasts(model))


def test_half_precision_adds_a_zero_of_its_own_type(tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    write_fp16(Workpiece(saved(ensemble(), tmp_path), ROWS), half)
    model = onnx.load(str(half))
    turned, waiting = in_turn(model)
    assert waiting == 1
    assert "out_0" in before(turned, "first_layer_1")
    assert np.array_equal(forecasts(turned), forecasts(model))


def test_what_members_quantise_once_is_quantised_again_behind_the_zero(tmp_path: Path) -> None:
    """Between a pair and its layer nothing may stand, or TensorRT computes the layer in floating point."""
    eight_bits = tmp_path / "int8.onnx"
    write_int8(Workpiece(saved(ensemble(), tmp_path), ROWS), eight_bits, most_error=0.2)
    model = onnx.load(str(eight_bits))
    turned, waiting = in_turn(model)
    assert waiting == 1
    kinds = {name: node.op_type for node in turned.graph.node for name in node.output}
    layers = [node for node in turned.graph.node if node.op_type == "MatMul"]
    assert [[kinds[name] for name in layer.input] for layer in layers] == [["DequantizeLinear"] * 2] * 4
    assert "out_0" in before(turned, "first_layer_1")
    assert np.array_equal(forecasts(turned), forecasts(model))


def test_one_quantisation_with_two_ways_back_is_written_once_for_a_member() -> None:
    model = ensemble()
    make = helper.make_node
    scale, *others = (onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node)
    ways = [make("QuantizeLinear", ["scaled", "scale", "zero"], ["eight"], name="quantise")]
    ways += [
        make("DequantizeLinear", ["eight", "scale", "zero"], [name], name=f"back_{name}")
        for name in ("shared", "other")
    ]
    for each in range(2):
        ways.append(make("Add", ["shared", "other"], [f"both_{each}"], name=f"both_{each}"))
        next(node for node in others if node.name == f"first_layer_{each}").input[0] = f"both_{each}"
    del model.graph.node[:]
    model.graph.node.extend([scale, *ways, *others])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.01, np.float32), "scale"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"))
    turned, waiting = in_turn(model)
    assert waiting == 1
    assert [node.op_type for node in turned.graph.node].count("QuantizeLinear") == 2
    assert np.array_equal(forecasts(turned), forecasts(model))


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("freshretailnet-transformer", 2),
        ("freshretailnet-tsmixer", 2),
        ("freshretailnet-lstm", 3),
        ("bakery-transformer", 3),
        ("bakery-smoother", 1),
    ],
)
def test_members_of_the_committed_models_are_found(name: str, members: int) -> None:
    model = onnx.load(str(MODELS / name / "model.onnx"))
    assert in_turn(model)[1] == members - 1


def test_recurrent_networks_stay_together_unless_said() -> None:
    graph = (MODELS / "bakery-lstm" / "model.onnx").read_bytes()
    assert arranged(graph, "int8") is graph
    assert arranged(graph, "int8", "in-turn") != graph


def test_one_network_is_built_from_its_own_bytes() -> None:
    graph = network().SerializeToString()
    assert arranged(graph, "int8", "in-turn") is graph


def test_only_int8_is_in_turn_unless_said() -> None:
    graph = ensemble().SerializeToString()
    assert arranged(graph, "fp16") is graph
    assert arranged(graph, "int8", "together") is graph
    assert arranged(graph, "int8") == arranged(graph, "fp32", "in-turn") != graph
