from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from engine_build.errors import GraphError
from engine_build.graph import load_graph
from engine_build.operators import NEAREST
from schemas.load import load_schema
from tests.helpers.onnx_graphs import SCHEMA, model_of, network, saved

WEIGHTS: dict[str, Any] = {"weights": np.ones((8, 6), np.float32), "shape": np.array([-1, 2, 3], np.int64)}


def small(*first: onnx.NodeProto, made: str = "sales", **options: Any) -> onnx.ModelProto:
    nodes = [
        *first,
        helper.make_node("MatMul", [made, "weights"], ["hidden"], name="layer"),
        helper.make_node("Reshape", ["hidden", "shape"], [options.get("output", ("forecast",))[0]], name="out"),
    ]
    return model_of(nodes, options.pop("inputs", {"sales": ["batch", 8]}), options.pop("weights", WEIGHTS), **options)


def refused(model: onnx.ModelProto, folder: Path) -> str:
    with pytest.raises(GraphError) as caught:
        load_graph(saved(model, folder), SCHEMA)
    return str(caught.value)


def test_a_fitting_graph_tells_what_it_takes_and_gives(tmp_path: Path) -> None:
    graph = load_graph(saved(network(), tmp_path), SCHEMA)
    assert (graph.inputs, graph.horizon, graph.quantiles, graph.opset) == ({"sales": 8, "as_of": None}, 2, 3, 17)
    assert graph.notes == ()
    assert len(graph.sha256) == 64


def test_an_opset_that_8_6_does_not_parse_is_noted(tmp_path: Path) -> None:
    assert "TensorRT 8.6 parses up to 17" in load_graph(saved(network(opset=18), tmp_path), SCHEMA).notes[0]


@pytest.mark.parametrize("path", sorted(Path("models").glob("*/model.onnx")), ids=lambda path: path.parent.name)
def test_committed_models_pass(path: Path) -> None:
    assert load_graph(path, load_schema(None, "sku_features")).horizon == 14


def test_an_unsupported_operator_is_named_with_its_nearest_form(tmp_path: Path) -> None:
    message = refused(small(helper.make_node("Bernoulli", ["sales"], ["chance"], name="dice"), made="chance"), tmp_path)
    assert "node 'dice': operator Bernoulli isn't taken by any TensorRT; nearest form:" in message


def test_an_operator_of_another_domain_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Special", ["sales"], ["made"], name="own", domain="com.example")
    message = refused(small(node, made="made", domains=("com.example",)), tmp_path)
    assert "operator com.example.Special is none of the ONNX standard" in message


def test_wrong_input_names_are_told_with_the_fields_there_are(tmp_path: Path) -> None:
    message = refused(small(made="sold", inputs={"sold": ["batch", 8]}), tmp_path)
    assert "input 'sold': no field of that name in the schema, expected one of ['as_of', 'promo', 'sales']" in message


def test_wrong_outputs_and_inputs_are_told_at_once(tmp_path: Path) -> None:
    message = refused(
        small(made="sold", inputs={"sold": ["batch", 8]}, output=("prediction", ["batch", 2, 3])), tmp_path
    )
    assert "input 'sold'" in message
    assert "output: got 'prediction' float32[batch, 2, 3], expected only 'forecast'" in message


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    message = refused(small(inputs={"sales": [4, 8]}, output=("forecast", [4, 2, 3])), tmp_path)
    assert "got float32[4, 8], expected float32[batch] or float32[batch, n] with a dynamic first" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_told_as_such(tmp_path: Path, share: float) -> None:
    path = saved(network(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GraphError, match="cut off"):
        load_graph(path, SCHEMA)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="can't be read: No such file"):
        load_graph(tmp_path / "none.onnx", SCHEMA)


@pytest.mark.parametrize("gone", [True, False])
def test_weights_in_other_files_are_refused(tmp_path: Path, gone: bool) -> None:  # noqa: FBT001 - a parameter
    path = tmp_path / "model.onnx"
    onnx.save(network(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    if gone:
        (tmp_path / "weights.bin").unlink()
    expected = "isn't beside the model" if gone else "a published model is one file"
    with pytest.raises(GraphError, match=f"weights lie in weights.bin.*{expected}"):
        load_graph(path, SCHEMA)


def test_int8_initialisers_are_refused(tmp_path: Path) -> None:
    weights = {
        "packed": np.ones((8, 6), np.int8),
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
        "shape": WEIGHTS["shape"],
    }
    node = helper.make_node("DequantizeLinear", ["packed", "scale", "zero"], ["weights"], name="unpack")
    message = refused(small(node, weights=weights), tmp_path)
    assert "1 weights are INT8 initialisers (first: 'packed' into 'unpack')" in message
    assert "float weights followed by QuantizeLinear and DequantizeLinear" in message


def test_the_table_of_operators_agrees_with_tensorrt_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="only for Linux on x86_64")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    empty = builder.create_network(0)
    parser = trt.OnnxParser(empty, logger)  # which holds no reference to the network
    taken = [name for name in NEAREST if onnx.defs.has(name) and parser.supports_operator(name)]
    assert taken == []
    refused_here = {
        each.name for each in onnx.defs.get_all_schemas() if not each.domain and not parser.supports_operator(each.name)
    }
    assert refused_here <= NEAREST.keys()
