"""The contract between an event and a model: each input of the model is a field of the feature schema.

Checked when a plan is built and when an engine is loaded, before anything is read, so that a mismatch is a sentence at
start-up and not a wrong number at night. Pure. `worker/` and `engine_build/` translate `MismatchError` into their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBERS = frozenset({"int", "long", "float", "double", "boolean"})
FORECAST = "forecast"


class MismatchError(ValueError):
    """Model and feature schema don't fit each other. The message names every field with got and expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a model: name, dtype as ONNX says it, and shape. None is a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join('batch' if size is None else str(size) for size in self.shape)}]"


def inputs_of(tensors: Sequence[Tensor], schema: Mapping[str, Any]) -> dict[str, int | None]:
    """Input name -> values per row (None: a scalar), for a model with `tensors` fed from records of `schema`.

    Raises `MismatchError` that lists every input that doesn't fit: which field, got, expected.
    """
    fields = {field["name"]: field for field in schema["fields"]}
    problems = []
    inputs: dict[str, int | None] = {}
    for tensor in tensors:
        problem = _shape_problem(tensor) or _field_problem(tensor, fields)
        if problem:
            problems.append(f"input '{tensor.name}': {problem}")
        else:
            inputs[tensor.name] = tensor.shape[1] if len(tensor.shape) > 1 else None
    if problems:
        raise MismatchError(f"the model doesn't fit schema {schema['name']}:\n  - " + "\n  - ".join(problems))
    return inputs


def check_output(tensors: Sequence[Tensor], horizon: int, quantiles: Sequence[float]) -> None:
    """Raise `MismatchError` unless the model's only output is `forecast` float32[batch, horizon, quantiles]."""
    expected = Tensor(name=FORECAST, dtype="float32", shape=(None, horizon, len(quantiles)))
    if len(tensors) != 1 or tensors[0] != expected:
        got = "; ".join(f"'{tensor.name}' {tensor}" for tensor in tensors) or "none"
        raise MismatchError(
            f"output: got {got}, expected '{FORECAST}' {expected} "
            f"(the card says {horizon} days and quantiles {list(quantiles)})"
        )


def _shape_problem(tensor: Tensor) -> str | None:
    if tensor.dtype != "float32":
        return f"got dtype {tensor.dtype}, expected float32; cast inside the graph"
    dynamic_batch = tensor.shape[:1] == (None,)
    if not dynamic_batch or len(tensor.shape) > 2 or any(not size for size in tensor.shape[1:]):
        return (
            f"got {tensor}, expected float32[batch] or float32[batch, n] with a dynamic first and a fixed second size"
        )
    return None


def _field_problem(tensor: Tensor, fields: Mapping[str, Mapping[str, Any]]) -> str | None:
    field = fields.get(tensor.name)
    if field is None:
        return f"no field of that name in the schema, expected one of {sorted(fields)}"
    scalar = len(tensor.shape) == 1
    kinds = _kinds(field["type"])
    wanted = "a number" if scalar else "an array of numbers"
    if scalar != (bool(kinds) and kinds <= NUMBERS) or not (scalar or kinds == {"array"}):
        return f"the model takes {tensor}, so the field must be {wanted}; the schema has {field['type']}"
    default = field.get("default")
    if not scalar and default is not None and len(default) != tensor.shape[1]:
        return f"the model takes {tensor.shape[1]} values, the schema's default has {len(default)}"
    return None


def _kinds(avro_type: Any) -> set[str]:  # noqa: ANN401 - an Avro type is a str, a list or a dict
    """The non-null types that a value of `avro_type` may have; an array only if its items are numbers."""
    if isinstance(avro_type, str):
        return {avro_type}
    if isinstance(avro_type, list):
        return set().union(*(_kinds(branch) for branch in avro_type if branch != "null"))
    if avro_type["type"] == "array":
        return {"array"} if _kinds(avro_type["items"]) <= NUMBERS else {"array of others"}
    return _kinds(avro_type["type"])
