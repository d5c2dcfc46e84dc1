from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engine_build.half import half_precision

REGION = {"/network/MatMul", "/network/Relu"}


def made() -> ModelProto:
    """Divides by 1e6 outside the region, multiplies with a matrix in it, and adds the (large) input again outside."""
    weights = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "tiny"], ["scaled"], name="/features/Mul"),
        helper.make_node("MatMul", ["scaled", "weights"], ["hidden"], name="/network/MatMul"),
        helper.make_node("Relu", ["hidden"], ["positive"], name="/network/Relu"),
        helper.make_node("Add", ["positive", "x"], ["y"], name="/calibration/Add"),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(np.array(1e-6, dtype=np.float32), "tiny"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray[Any, Any] = session.run(["y"], {"x": x})[0]
    return result


def test_only_the_region_becomes_half_and_inputs_and_outputs_stay_float() -> None:
    half = half_precision(made(), REGION)
    kinds = {each.name: each.data_type for each in half.graph.initializer}
    assert kinds == {"tiny": TensorProto.FLOAT, "weights_half": TensorProto.FLOAT16}
    assert [each.type.tensor_type.elem_type for each in (*half.graph.input, *half.graph.output)] == [
        TensorProto.FLOAT
    ] * 2
    assert [node.op_type for node in half.graph.node] == ["Mul", "Cast", "MatMul", "Relu", "Cast", "Add"]


def test_values_too_large_for_half_precision_pass_by_the_region() -> None:
    x = np.array([[1e6, 2e6, 3e6, 4e6]], dtype=np.float32)
    whole, half = run(made(), x), run(half_precision(made(), REGION), x)
    np.testing.assert_allclose(half, whole, rtol=1e-3)
    assert (half >= x).all()


def test_the_source_is_left_alone() -> None:
    source = made()
    before = source.SerializeToString()
    half_precision(source, REGION)
    assert source.SerializeToString() == before
