"""FP16 and INT8 versions of an exported model, as ONNX graphs that ONNX Runtime and TensorRT both run.

Scaling and calendar (`/features/`) and the way back to units (`/calibration/`) stay in FP32: days since 1970 and raw sales
don't fit in half precision. Inputs and outputs are float32 in every version.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from demo.series import FloatArray
from demo.training.half import half_precision

_NETWORKS: Final = ("/model/networks.", "/model/heads.")


def write_fp16(source: Path, target: Path) -> None:
    """Weights and computation of the networks and heads in half precision."""
    onnx: Any = importlib.import_module("onnx")
    onnx.save(half_precision(onnx.load(str(source)), _is_network), str(target))


def write_int8(source: Path, target: Path, samples: dict[str, FloatArray], *, rows: int = 256) -> None:
    """Weights of the matrix products as float -> Q -> DQ per channel, activations symmetric by min and max over `samples`.

    samples: input name -> float32[n, ...] windows of the training days. Products of two activations (attention) and the LSTM
    operator have no weights that ONNX Runtime quantises: they stay in floating point, and so does each head's last layer.
    """
    quantization: Any = importlib.import_module("onnxruntime.quantization")
    onnx: Any = importlib.import_module("onnx")
    graph = onnx.load(str(source)).graph
    constants = {each.name for each in graph.initializer}
    wanted = [
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and any(name in constants for name in node.input)
        and _is_network(node.name)
        and not _is_last_layer(node.name)
    ]
    quantization.quantize_static(
        str(source),
        str(target),
        _reader(quantization, samples, rows),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=wanted,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
        },
    )


def _is_network(name: str) -> bool:
    return name.startswith(_NETWORKS)


def _is_last_layer(name: str) -> bool:
    return name.startswith("/model/heads.") and "/output/" in name


def _reader(quantization: Any, samples: dict[str, FloatArray], rows: int) -> Any:  # noqa: ANN401 - an untyped library
    count = len(samples["sales"])
    batches = iter([{name: values[k : k + rows] for name, values in samples.items()} for k in range(0, count, rows)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, FloatArray] | None:
            return next(batches, None)

    return Reader()
