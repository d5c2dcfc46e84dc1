"""A trained forecaster as an ONNX file: one input per event field, dynamic batch, opset 17, plain operators."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from demo.series import FloatArray
from demo.training.model import Forecaster

OPSET: Final = 17  # the newest that TensorRT 8.6 parses
_SAMPLE_ROWS: Final = 3


class _Positional(nn.Module):
    """The same forecaster with its fields as positional arguments, as the exporter wants them."""

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.model = model

    def forward(self, *fields: Tensor) -> Tensor:
        forecast: Tensor = self.model(dict(zip(self.model.inputs, fields, strict=True)))
        return forecast


def export(model: Forecaster, path: Path) -> None:
    """Write `model` to `path`. Inputs float32[batch, n] or float32[batch], output `forecast` float32[batch, 14, 3]."""
    onnx: Any = importlib.import_module("onnx")
    model = model.cpu().eval()
    names = list(model.inputs)
    sample = tuple(
        torch.full((_SAMPLE_ROWS,), 18_000.0) if width is None else torch.ones(_SAMPLE_ROWS, width)
        for width in model.inputs.values()
    )
    with warnings.catch_warnings():
        # The exporter by tracing is the one that writes an LSTM as the LSTM operator; it warns that it is the older one,
        # and that an LSTM's batch must not vary unless its first state is an input of the LSTM, which it is here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Positional(model),
            sample,
            str(path),
            input_names=names,
            output_names=["forecast"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "forecast"]},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(str(path))
    del graph.metadata_props[:]
    for node in graph.graph.node:
        node.doc_string = ""  # the exporter writes paths of this machine into it
    _drop_detours(graph.graph, onnx.TensorProto)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def _drop_detours(graph: Any, kinds: Any) -> None:  # noqa: ANN401 - onnx has no types here
    """Remove casts to INT64 and straight back to INT32, which the exporter puts behind a division of whole numbers.

    Not every TensorRT has INT64.
    """
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    for back in [node for node in casts.values() if node.attribute[0].i == kinds.INT32 and node.input[0] in casts]:
        there = casts[back.input[0]]
        if there.attribute[0].i != kinds.INT64 or sum(there.output[0] in node.input for node in graph.node) > 1:
            continue
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == back.output[0]:
                    node.input[place] = there.input[0]
        graph.node.remove(there)
        graph.node.remove(back)


def largest_difference(model: Forecaster, path: Path, fields: dict[str, Tensor]) -> float:
    """Largest difference between PyTorch and ONNX Runtime on a batch, relative to the row's mean median forecast."""
    with torch.inference_mode():
        expected = model.cpu().eval()(fields).numpy()
    found = run_onnx(path, {name: values.numpy() for name, values in fields.items()})
    level = np.maximum(expected[:, :, 1].mean(axis=1), 1e-3)[:, None, None]
    return float((np.abs(found - expected) / level).max())


def run_onnx(path: Path, fields: dict[str, FloatArray], *, rows: int = 4096, threads: int = 0) -> FloatArray:
    """Forecasts by ONNX Runtime on the CPU, `rows` at a time. threads: 0 for all cores."""
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = [each.name for each in session.get_inputs()]
    count = len(fields["sales"])
    parts = [
        session.run(["forecast"], {name: fields[name][k : k + rows] for name in wanted})[0]
        for k in range(0, count, rows)
    ]
    return np.concatenate(parts)
