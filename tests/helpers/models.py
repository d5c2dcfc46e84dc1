"""Tiny ONNX models with their cards. They compute `engines.expected_forecasts`, so what comes out is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from schemas.engine_card import (
    CARD_NAME,
    Accuracy,
    Dimension,
    EngineCard,
    GoldenBatch,
    Profile,
    Tensor,
    sha256_hex,
    write_card,
)
from schemas.load import load_schema
from tests.helpers.engines import expected_forecasts
from worker.avro import fingerprint

INPUTS: Mapping[str, int | None] = {"sales": 30, "promo": 30}
"""Fields of the packaged feature schema."""


def schema_for(inputs: Mapping[str, int | None]) -> dict[str, Any]:
    """A feature schema with a key field, `sku_id`, and a field for each input."""
    return {
        "type": "record",
        "name": "Features",
        "fields": [
            {"name": "sku_id", "type": "string"},
            *(
                {"name": name, "type": "float" if width is None else {"type": "array", "items": "float"}}
                for name, width in inputs.items()
            ),
        ],
    }


def tiny_graph(
    inputs: Mapping[str, int | None],
    *,
    horizon: int,
    quantiles: Sequence[float],
    nan_below: float | None = None,
    fails_above: int | None = None,
    drift: float = 1.0,
    wrong_alone: bool = False,
) -> onnx.ModelProto:
    """drift * (|sum of the inputs' means| + day + quantile).

    nan_below: NaN for rows whose sum is below that. fails_above: batches with a row whose sum is above that fail in the
    runtime (an index beyond the end of a table). wrong_alone: a batch of one row comes out 1 too high.
    """
    nodes, means = [], []
    for name, width in inputs.items():
        means.append(f"{name}_mean")
        if width is None:
            nodes.append(helper.make_node("Unsqueeze", [name, "axis_1"], [means[-1]]))
        else:
            nodes.append(helper.make_node("ReduceMean", [name], [means[-1]], axes=[1], keepdims=1))
    total = "total"
    nodes.append(helper.make_node("Sum", means, [total]))
    if nan_below is not None:
        nodes += [
            helper.make_node("Less", [total, "nan_below"], ["is_bad"]),
            helper.make_node("Where", ["is_bad", "nan", total], ["spoilt"]),
        ]
        total = "spoilt"
    if fails_above is not None:
        nodes += [
            helper.make_node("ReduceMax", [total], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["zeros", "index"], ["zero"]),
            helper.make_node("Add", [total, "zero"], ["checked"]),
        ]
        total = "checked"
    if wrong_alone:
        nodes += [
            helper.make_node("Shape", [total], ["shape"], end=1),
            helper.make_node("Equal", ["shape", "axis_1"], ["is_alone"]),
            helper.make_node("Cast", ["is_alone"], ["one_if_alone"], to=TensorProto.FLOAT),
            helper.make_node("Add", [total, "one_if_alone"], ["right_among_others"]),
        ]
        total = "right_among_others"
    nodes += [
        helper.make_node("Abs", [total], ["size"]),
        helper.make_node("Unsqueeze", ["size", "axis_1"], ["cube"]),
        helper.make_node("Add", ["cube", "ramp"], ["forecast" if drift == 1.0 else "sound"]),
    ]
    if drift != 1.0:
        nodes.append(helper.make_node("Mul", ["sound", "drift"], ["forecast"]))
    ramp = np.arange(horizon, dtype=np.float32)[None, :, None] + np.asarray(quantiles, np.float32)[None, None, :]
    constants: dict[str, NDArray[Any]] = {
        "axis_1": np.array([1], np.int64),
        "ramp": ramp,
        "nan_below": np.array(nan_below or 0.0, np.float32),
        "nan": np.array(np.nan, np.float32),
        "drift": np.array(drift, np.float32),
        "zeros": np.zeros((fails_above or 0) + 1, np.float32),
    }
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_value(name, [] if width is None else [width]) for name, width in inputs.items()],
        [_value("forecast", [horizon, len(quantiles)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def tiny_model(
    folder: Path,
    *,
    inputs: Mapping[str, int | None] = INPUTS,
    horizon: int = 3,
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
    max_rows: int = 8,
    schema: Mapping[str, Any] | None = None,
    nan_below: float | None = None,
    fails_above: int | None = None,
    drift: float = 1.0,
    wrong_alone: bool = False,
    version: str = "1",
) -> Path:
    """Write model.onnx and card.json into `folder`, and return it.

    `schema`: the feature schema it is for; without one the packaged schema if it has all inputs, else `schema_for(inputs)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    graph = tiny_graph(
        inputs,
        horizon=horizon,
        quantiles=quantiles,
        nan_below=nan_below,
        fails_above=fails_above,
        drift=drift,
        wrong_alone=wrong_alone,
    )
    model.write_bytes(graph.SerializeToString())
    columns = {
        name: np.linspace(1.0, 2.0, 2 * (width or 1), dtype=np.float32).reshape((2,) if width is None else (2, width))
        for name, width in inputs.items()
    }
    outputs = np.float32(drift) * expected_forecasts(columns, 2, horizon=horizon, quantiles=quantiles)
    card = EngineCard(
        model="tiny",
        version=version,
        inputs=tuple(Tensor(name=name, dtype="float32", shape=_shape(width)) for name, width in inputs.items()),
        outputs=(Tensor(name="forecast", dtype="float32", shape=("batch", horizon, len(quantiles))),),
        quantiles=quantiles,
        horizon=horizon,
        profile=Profile(min_rows=1, opt_rows=max_rows, max_rows=max_rows),
        precision="fp32",
        onnx_sha256=sha256_hex(model),
        schema_fingerprint=fingerprint(dict(schema or _schema_with(inputs))).hex(),
        golden=GoldenBatch(
            inputs={name: column.tolist() for name, column in columns.items()},
            outputs=outputs.tolist(),
            relative_tolerance=1e-5,
            absolute_tolerance=1e-5,
        ),
        accuracy={"fp32": Accuracy(wape=0.1, wape_total=0.1, bias=0.0, pinball=0.1, rows=2)},
    )
    write_card(card, folder / CARD_NAME)
    return folder


def _schema_with(inputs: Mapping[str, int | None]) -> dict[str, Any]:
    packaged: dict[str, Any] = load_schema(None, "sku_features")
    has_all = inputs.keys() <= {field["name"] for field in packaged["fields"]}
    return packaged if has_all else schema_for(inputs)


def _shape(width: int | None) -> tuple[Dimension, ...]:
    return ("batch",) if width is None else ("batch", width)


def _value(name: str, sizes: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])
