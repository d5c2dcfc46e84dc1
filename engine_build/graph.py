"""The ONNX file that plans are built from: read, held against the feature schema and against what TensorRT takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from engine_build.errors import GraphError
from engine_build.operators import NEWEST_OPSET_OF_8_6, STANDARD_DOMAINS, problem_of
from schemas.contract import FORECAST, MismatchError, Tensor, inputs_of

_DTYPES: Final[dict[int, str]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.STRING: "string",
}
_EIGHT_BITS: Final = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An ONNX file that passed every check that needs no TensorRT.

    inputs: name -> values per row (None: a scalar), in the model's order. horizon: days. quantiles: how many (their levels
    are the card's business). notes: what is worth knowing and stops nothing, one sentence each.
    """

    path: Path
    inputs: Mapping[str, int | None]
    horizon: int
    quantiles: int
    opset: int
    nodes: int
    sha256: str
    notes: tuple[str, ...] = ()


def load_graph(path: Path, schema: Mapping[str, Any]) -> Graph:
    """Read `path` and check it against the Avro record `schema` of the events and TensorRT's operators.

    Raises `GraphError` with every problem found: what, got, expected, remedy.
    """
    content = _read(path)
    model = _parsed(path, content)
    inputs, contract_problems = _inputs(model, schema)
    shape, output_problems = _forecast_shape(model)
    problems = [
        *_external_problems(path, model),
        *contract_problems,
        *output_problems,
        *_operator_problems(model),
        *_quantised_problems(model),
    ]
    if problems:
        raise GraphError(str(path), problems)
    opset = next(each.version for each in model.opset_import if each.domain in STANDARD_DOMAINS)
    return Graph(
        path=path,
        inputs=inputs,
        horizon=shape[0],
        quantiles=shape[1],
        opset=opset,
        nodes=len(model.graph.node),
        sha256=hashlib.sha256(content).hexdigest(),
        notes=_notes(opset),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GraphError(str(path), [f"can't be read: {error.strerror}; expected an ONNX file"]) from error


def _parsed(path: Path, content: bytes) -> onnx.ModelProto:
    """The model; `GraphError` if the bytes are cut off or no ONNX. External data are not loaded."""
    remedy = f"got {len(content):,} bytes; the file is cut off or isn't ONNX: copy or export it again"
    try:
        model: onnx.ModelProto = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise GraphError(str(path), [f"can't be parsed ({error}): {remedy}"]) from error
    if not model.graph.node or not any(each.domain in STANDARD_DOMAINS for each in model.opset_import):
        raise GraphError(str(path), [f"holds no graph of standard operators: {remedy}"])
    try:
        onnx.checker.check_model(model, full_check=not _external(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        if not _external(model):
            first = str(error).strip().splitlines()[0]
            raise GraphError(str(path), [f"isn't valid ONNX: {first}; if it was cut off, copy it again"]) from error
    return model


def _external(model: onnx.ModelProto) -> list[str]:
    """The files that weights lie in beside the model."""
    places = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(places)


def _external_problems(path: Path, model: onnx.ModelProto) -> list[str]:
    files = _external(model)
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        return [f"weights lie in {', '.join(missing)}, which isn't beside the model; copy it there and join them"]
    if files:
        joined = "onnx.save(onnx.load(path), path, save_as_external_data=False)"
        return [
            f"weights lie in {', '.join(files)}; a published model is one file with one digest. Join them: {joined}"
        ]
    return []


def _inputs(model: onnx.ModelProto, schema: Mapping[str, Any]) -> tuple[dict[str, int | None], list[str]]:
    constants = {tensor.name for tensor in model.graph.initializer}
    tensors = [_tensor(value) for value in model.graph.input if value.name not in constants]
    if not tensors:
        return {}, ["no inputs: got none, expected one for each event field that the model reads"]
    try:
        return inputs_of(tensors, schema), []
    except MismatchError as error:
        return {}, [line.removeprefix("  - ") for line in str(error).splitlines()[1:]]


def _forecast_shape(model: onnx.ModelProto) -> tuple[tuple[int, int], list[str]]:
    """Horizon and number of quantiles of the only output, or what is wrong with the outputs.

    Exporters leave sizes open that follow from the graph, so they are inferred.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    outputs = [_tensor(value) for value in inferred.graph.output]
    match outputs:
        case [Tensor(name="forecast", dtype="float32", shape=(None, int(horizon), int(quantiles)))] if (
            horizon > 0 < quantiles
        ):
            return (horizon, quantiles), []
    got = "; ".join(f"'{tensor.name}' {tensor}" for tensor in outputs) or "none"
    expected = f"only '{FORECAST}' float32[batch, horizon, quantiles] with a dynamic first size and fixed others"
    return (0, 0), [f"output: got {got}, expected {expected}; rename or reshape it at export"]


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    sizes = tuple(each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim)
    code = int(kind.elem_type)
    return Tensor(name=value.name, dtype=_DTYPES.get(code, f"ONNX type {code}"), shape=sizes)


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, also those in the branches and bodies of If, Loop and Scan."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _operator_problems(model: onnx.ModelProto) -> list[str]:
    """One sentence for each operator that isn't taken, with the node that it was first seen in. Model functions are inlined by parsers."""
    functions = {(function.domain, function.name) for function in model.functions}
    inner = (node for function in model.functions for node in function.node)
    seen: dict[str, str] = {}
    for node in (*nodes_of(model.graph), *inner):
        if (node.domain, node.op_type) in functions:
            continue
        problem = problem_of(node.op_type, node.domain, known=_known(node.op_type))
        if problem is not None:
            seen.setdefault(problem, node.name or ", ".join(node.output))
    return [f"node '{name}': {problem}" for problem, name in seen.items()]


def _known(operator: str) -> bool:
    return bool(onnx.defs.has(operator))


def _quantised_problems(model: onnx.ModelProto) -> list[str]:
    """Weights that are INT8 already; zero points are INT8 by rule and fine."""
    weights = {tensor.name for tensor in _constants(model.graph) if tensor.data_type in _EIGHT_BITS}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    if not nodes:
        return []
    got = f"{len(nodes)} weights are INT8 initialisers (first: '{nodes[0].input[0]}' into '{nodes[0].name}')"
    expected = "TensorRT takes float weights followed by QuantizeLinear and DequantizeLinear"
    return [f"{got}; {expected}. Give the FP32 model with --precision int8, or quantise it with AddQDQPairToWeight"]


def _constants(graph: onnx.GraphProto) -> Iterable[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor


def _notes(opset: int) -> tuple[str, ...]:
    if opset <= NEWEST_OPSET_OF_8_6:
        return ()
    return (f"opset {opset}: TensorRT 8.6 parses up to {NEWEST_OPSET_OF_8_6}; export with that for GPUs that run 8.6",)
