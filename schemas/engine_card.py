"""EngineCard: what a model takes, gives, was proved to do, and which bytes it is. A JSON file beside the model.

`model.onnx` (or a plan built from it) -> `card.json`; the worker checks both against the feature schema when it starts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

CARD_NAME: Final = "card.json"

Precision = Literal["fp32", "fp16", "int8"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
"""Below the version's folder: no leading `/`, no `..`, nothing hidden."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Dimension = Annotated[int, Field(ge=1)] | Literal["batch"]


class CardError(ValueError):
    """A card can't be read, or is wrong. `problems` holds all of them, one sentence each."""

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join([f"engine card {source}:", *(f"  - {problem}" for problem in problems)]))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Tensor(_Part):
    """One input or output. The first dimension is the word `batch`; the others are fixed."""

    name: Annotated[str, Field(min_length=1)]
    dtype: Literal["float32"]
    shape: Annotated[tuple[Dimension, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _batch_first(self) -> Self:
        if self.shape[0] != "batch" or "batch" in self.shape[1:]:
            raise ValueError(
                f"shape of {self.name}: got {list(self.shape)}, expected 'batch' first and numbers after it"
            )
        return self


class Profile(_Part):
    """Rows of the smallest, the usual and the largest batch that the engine is built for."""

    min_rows: Annotated[int, Field(ge=1)]
    opt_rows: int
    max_rows: int

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.min_rows <= self.opt_rows <= self.max_rows:
            raise ValueError(f"got {self.min_rows} / {self.opt_rows} / {self.max_rows}, expected min <= opt <= max")
        return self


class GoldenBatch(_Part):
    """Inputs with reference outputs: an engine may differ from them by `absolute + relative * |reference|` at most.

    inputs: name -> rows (of values, for an array). outputs: rows x horizon x quantiles. Units as in the events.
    """

    inputs: dict[str, list[list[Finite]] | list[Finite]]
    outputs: list[list[list[Finite]]]
    relative_tolerance: Annotated[float, Field(ge=0)]
    absolute_tolerance: Annotated[float, Field(ge=0)]


class Accuracy(_Part):
    """Errors on a period that the model wasn't fitted on.

    wape: sum of |median forecast - actual| / sum of actuals, per day; wape_total: the same on sums over the horizon.
    bias: sum of (forecast - actual) / sum of actuals. pinball: mean pinball loss over the quantiles, in units per day.
    """

    wape: Annotated[float, Field(ge=0)]
    wape_total: Annotated[float, Field(ge=0)]
    bias: Finite
    pinball: Annotated[float, Field(ge=0)]
    rows: Annotated[int, Field(ge=1)]


class OutputHistogram(_Part):
    """Reference distribution of log(forecast / recent mean): shares of rows between ascending edges.

    The forecast is the mean of the middle quantile over the horizon; the recent mean is that of `mean_of`, an input.
    The outer bins are open: the first holds all below edges[1], the last all above edges[-2]. usual_index: the largest population
    stability index against `shares` that a window of 2,048 rows had on the reference days; 0 if nobody looked.
    """

    mean_of: str
    edges: Annotated[list[Finite], Field(min_length=3)]
    shares: list[Annotated[float, Field(ge=0, le=1)]]
    usual_index: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _shares_fit_edges(self) -> Self:
        if len(self.shares) != len(self.edges) - 1:
            raise ValueError(f"got {len(self.shares)} shares for {len(self.edges)} edges, expected one less")
        if not all(low < high for low, high in itertools.pairwise(self.edges)):
            raise ValueError("edges must ascend")
        if not math.isclose(sum(self.shares), 1.0, abs_tol=1e-3):
            raise ValueError(f"shares add up to {sum(self.shares):.4f}, expected 1")
        return self


class VersionFile(_Part):
    """A file of the version. file: its path below the version's folder, with `/`."""

    file: RelativePath
    sha256: Digest


class Plan(_Part):
    """A TensorRT plan: a program for one kind of GPU (TensorRT-RTX: for several), so only its exact bytes may be loaded.

    file: its path below the version's folder. graph_sha256: the ONNX file that it was built from. runtime, runtime_version:
    what built it and can load it. gpu: the device's name as the driver gives it, None if it was built for a
    compute capability as such. profiles: the batch sizes it takes, rows. cuda_graph_rows: batch sizes worth a CUDA graph.
    device_memory_bytes: activations and weights while it is loaded, as TensorRT states or as was measured. calibration_sha256: of the rows that INT8
    scales come from. Against ONNX Runtime in FP32 it may differ by `absolute_tolerance + relative_tolerance * |reference|`.
    proved: `device` if it ran on a GPU within that; `structure` if only its inputs, outputs and profiles were checked, for
    want of a GPU of its type where it was built. Whoever loads it proves it anew either way.

    Among plans for one GPU type, the one to prefer comes first.
    """

    file: RelativePath
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    graph_sha256: Digest
    precision: Precision
    runtime: Literal["tensorrt", "tensorrt_rtx"]
    runtime_version: Annotated[str, Field(pattern=r"^\d+(\.\d+)+")]
    compute_capabilities: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\d+\.\d+$")], ...], Field(min_length=1, strict=False)
    ]
    gpu: Annotated[str, Field(min_length=1)] | None = None
    profiles: Annotated[tuple[Profile, ...], Field(min_length=1, strict=False)]
    cuda_graph_rows: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = ()
    device_memory_bytes: Annotated[int, Field(ge=0)] | None = None
    calibration_sha256: Digest | None = None
    relative_tolerance: Annotated[float, Field(ge=0)]
    absolute_tolerance: Annotated[float, Field(ge=0)]
    proved: Literal["device", "structure"] = "structure"


class Signature(_Part):
    """Who vouches for the card. key: sha256 of the signer's public key. ed25519: the signature, base64. See `card_signature`."""

    key: Digest
    ed25519: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class EngineCard(_Part):
    """The card. Unknown keys are errors; so are values of a wrong type.

    schema_fingerprint: CRC-64-AVRO of the feature schema (hex of the eight bytes as they stand in an event) the model was made for; horizon: days.
    graphs: the ONNX files by precision that plans are built from, where they aren't the model itself. plans: what was built
    from them, for several kinds of GPU. golden_file: `golden.npz`, more rows like `golden`, for whoever proves plans.
    accuracy: by precision. signature: over everything else in the card.
    """

    card_version: Literal[1] = 1
    model: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    doc: str = ""
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1, strict=False)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1, strict=False)]
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, strict=False)]
    horizon: Annotated[int, Field(ge=1)]
    profile: Profile
    precision: Precision
    onnx_sha256: Digest
    graphs: dict[Precision, VersionFile] = {}
    plans: Annotated[tuple[Plan, ...], Field(strict=False)] = ()
    schema_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    golden: GoldenBatch
    golden_file: VersionFile | None = None
    accuracy: dict[Precision, Accuracy]
    latency_budget_ms: Annotated[float, Field(gt=0)] | None = None
    output_histogram: OutputHistogram | None = None
    signature: Signature | None = None

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if not all(low < high for low, high in itertools.pairwise(quantiles)):
            raise ValueError(f"quantiles must ascend, got {list(quantiles)}")
        return quantiles

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        problems = [*self._plan_problems(), *self._forecast_problems(), *self._golden_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _plan_problems(self) -> list[str]:
        counts = Counter(plan.file for plan in self.plans)
        twice = sorted(file for file, count in counts.items() if count > 1)
        return [f"plans: {', '.join(twice)} named more than once"] if twice else []

    def _forecast_problems(self) -> list[str]:
        expected = ("batch", self.horizon, len(self.quantiles))
        found = {tensor.name: tensor.shape for tensor in self.outputs}
        if found.get("forecast") != expected:
            return [f"outputs: got {found}, expected forecast {list(expected)} from horizon and quantiles"]
        return []

    def _golden_problems(self) -> list[str]:
        rows = len(self.golden.outputs)
        problems = []
        if set(self.golden.inputs) != {tensor.name for tensor in self.inputs}:
            problems.append(f"golden.inputs: got {sorted(self.golden.inputs)}, expected one for each input")
        for tensor in self.inputs:
            shape = _shape(self.golden.inputs.get(tensor.name, []))
            if tensor.name in self.golden.inputs and shape != (rows, *tensor.shape[1:]):
                problems.append(f"golden.inputs.{tensor.name}: got shape {shape}, expected {(rows, *tensor.shape[1:])}")
        if rows == 0 or _shape(self.golden.outputs) != (rows, self.horizon, len(self.quantiles)):
            problems.append("golden.outputs: expected rows x horizon x quantiles")
        return problems


def _shape(values: object) -> tuple[int, ...] | None:
    """The shape of nested lists; None if they are ragged."""
    if not isinstance(values, list):
        return ()
    inner = {_shape(value) for value in values}
    if len(inner) > 1 or None in inner:
        return None
    return (len(values), *(inner.pop() or () if inner else ()))


def load_card(path: Path) -> EngineCard:
    """The card in `path`. Raises `CardError` with every problem found."""
    try:
        return parse_card(path.read_bytes(), source=str(path))
    except OSError as error:
        raise CardError(str(path), (f"can't be read: {error.strerror}",)) from error


def parse_card(data: bytes | str, *, source: str = "") -> EngineCard:
    """The card in JSON text. Raises `CardError` with every problem found; `source` names it in the message."""
    try:
        content = json.loads(data)
        return EngineCard.model_validate(content)
    except ValidationError as error:
        problems = tuple(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise CardError(source, problems) from error
    except (ValueError, RecursionError) as error:
        raise CardError(source, (f"isn't JSON: {error}",)) from error


def write_card(card: EngineCard, path: Path) -> None:
    """Write `card` as JSON, a file that `load_card` gives back equal."""
    path.write_text(dump_card(card), encoding="utf-8")


def dump_card(card: EngineCard) -> str:
    """The card as JSON text, keys in the order of the class, long rows of numbers on one line each."""
    lines = []
    for name, value in card.model_dump(mode="json").items():
        compact = name in {"golden", "output_histogram"}
        text = json.dumps(value, allow_nan=False, indent=None if compact else 2)
        lines.append(f"  {json.dumps(name)}: " + text.replace("\n", "\n  "))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def sha256_hex(path: Path) -> str:
    """SHA-256 of a file's bytes, as the card holds it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
