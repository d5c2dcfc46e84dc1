"""FP32, FP16 and INT8 versions of a model as ONNX graphs: precision lives in the graph, for every TensorRT and for ONNX Runtime.

Inputs and outputs are float32 in every version. FP16: the part of the graph that bears it is cast (`regions.py`). INT8: the
products with weights of that part read eight bits (`qdq.py`), those that don't bear it are left (`sensitivity.py`), and what
isn't in eight bits is FP16, or FP32 by option.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx

from engine_build.half import half_precision
from engine_build.onnx_run import Columns, FloatArray, OnnxRun, rows_of, spread
from engine_build.qdq import Layer, layers_of, quantised, require_opset
from engine_build.ranges import METHODS, Method, ranges_of
from engine_build.regions import Region, half_region, named
from engine_build.sensitivity import Choice, Switches, choices, wape_to
from schemas.engine_card import Precision, sha256_hex

MOST_ERROR: Final = 0.01
"""WAPE-to-FP32 that INT8 may cost. A forecast whose WAPE is 0.2 gets worse by far less than 2 % of that (bench/results)."""

_REGION_ROWS: Final = 256
_SENSITIVITY_ROWS: Final = 256


class Workpiece:
    """A model and rows to try it on. What FP16 and INT8 both ask of them is found out once.

    Args:
        source: the model's file, FP32.
        columns: calibration rows, float32.
        keep_fp32: patterns of node names that stay in FP32 whatever is measured; they aren't quantised either.
    """

    def __init__(self, source: Path, columns: Columns, *, keep_fp32: Sequence[str] = ()) -> None:
        self.source = source
        self.columns = columns
        self._keep_fp32 = tuple(keep_fp32)

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        """With a name of its own for every node. Not to be changed."""
        return named(onnx.load(str(self.source)))

    @functools.cached_property
    def region(self) -> Region:
        """What bears half precision."""
        return half_region(self.model, rows_of(self.columns, 0, _REGION_ROWS), keep_fp32=self._keep_fp32)

    @functools.cached_property
    def forecasts(self) -> FloatArray:
        """float32[rows, horizon, quantiles] of all columns, in FP32."""
        return OnnxRun(self.source).forecasts(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionGraph:
    """A model in one precision, as a file.

    method: "none" (FP32), "cast" (FP16), "minmax" or "entropy" (INT8: the calibration that was taken).
    fp16_layers, int8_layers: how many layers with weights compute in it.
    left_in_fp32: nodes left in FP32 -> relative error that half precision makes in them (None: named by the caller, or they
    feed such a node). left_unquantised: layers left out of INT8 -> WAPE-to-FP32 with them (and who shares their input) alone
    in eight bits, on few rows. wape_to_fp32: of the file, on the calibration rows. trials: what else was tried -> its WAPE-to-FP32.
    """

    precision: Precision
    path: Path
    sha256: str
    method: Literal["none", "cast", "minmax", "entropy"]
    fp16_layers: int = 0
    int8_layers: int = 0
    left_in_fp32: Mapping[str, float | None]
    left_unquantised: Mapping[str, float]
    wape_to_fp32: float
    trials: Mapping[str, float]
    notes: tuple[str, ...] = ()


def write_fp32(source: Path, target: Path) -> PrecisionGraph:
    """The model as it is, the same bytes."""
    target.write_bytes(source.read_bytes())
    return PrecisionGraph(
        precision="fp32",
        path=target,
        sha256=sha256_hex(target),
        method="none",
        left_in_fp32={},
        left_unquantised={},
        wape_to_fp32=0.0,
        trials={},
    )


def write_fp16(work: Workpiece, target: Path) -> PrecisionGraph:
    """The model with the layers that bear it in half precision."""
    region = work.region
    result = half_precision(work.model, region.nodes)
    onnx.save(result, str(target))
    return PrecisionGraph(
        precision="fp16",
        path=target,
        sha256=sha256_hex(target),
        method="cast",
        fp16_layers=len(region.layers),
        left_in_fp32=_left_in_fp32(region),
        left_unquantised={},
        wape_to_fp32=_error(work, target),
        trials={},
        notes=() if region.layers else ("no layer with weights: nothing to gain from half precision, all stays FP32",),
    )


def write_int8(
    work: Workpiece,
    target: Path,
    *,
    rest: Literal["fp16", "fp32"] = "fp16",
    methods: Sequence[Method] = METHODS,
    most_error: float = MOST_ERROR,
) -> PrecisionGraph:
    """The model with the layers that bear it in eight bits, by the calibration method that leaves the most of them there.

    rest: what the other nodes of the network compute in. most_error: WAPE-to-FP32 up to which layers may stay in eight
    bits. Raises `GraphError` if the opset has no scales per channel.
    """
    model, columns = work.model, work.columns
    require_opset(model, str(work.source))
    region = work.region
    layers = layers_of(model, region.nodes)
    tensors = tuple(dict.fromkeys(layer.values for layer in layers))
    largest = ranges_of(model, tensors, columns, methods) if layers else {method: {} for method in methods}
    switches = Switches(model, layers, spread(columns, _SENSITIVITY_ROWS))
    found = choices(switches, largest, most_error=most_error)
    method = min(found, key=lambda each: (-sum(layer.size for layer in found[each].kept), found[each].error))
    choice = found[method]
    result = quantised(model, choice.kept, largest[method])
    in_half = region.nodes - {layer.node for layer in choice.kept} if rest == "fp16" else frozenset()
    onnx.save(half_precision(result, in_half) if in_half else result, str(target))
    return PrecisionGraph(
        precision="int8",
        path=target,
        sha256=sha256_hex(target),
        method=method,
        fp16_layers=len(set(region.layers) & in_half),
        int8_layers=len(choice.kept),
        left_in_fp32=_left_in_fp32(region),
        left_unquantised=choice.left,
        wape_to_fp32=_error(work, target),
        trials=_trials(found),
        notes=_notes(model, region, layers, rest),
    )


def _error(work: Workpiece, target: Path) -> float:
    return wape_to(work.forecasts, OnnxRun(target).forecasts(work.columns))


def _left_in_fp32(region: Region) -> dict[str, float | None]:
    return {name: None if math.isnan(error) else error for name, error in region.left.items()}


def _trials(found: Mapping[Method, Choice]) -> dict[str, float]:
    """Each method with all layers in eight bits, and with those that it keeps."""
    trials: dict[str, float] = {}
    for method, choice in found.items():
        trials[f"{method}: all layers"] = choice.error_of_all
        trials[f"{method}: {len(choice.kept)} layers"] = choice.error
    return trials


def _notes(model: onnx.ModelProto, region: Region, layers: Sequence[Layer], rest: str) -> tuple[str, ...]:
    quantisable = {layer.node for layer in layers}
    kinds = {node.name: node.op_type for node in model.graph.node}
    others = [kinds[name] for name in region.layers if name not in quantisable]
    notes = [f"{others.count(kind)} {kind} have no eight-bit form: {rest.upper()}" for kind in sorted(set(others))]
    if not layers:
        notes.append("no layer with an eight-bit form: nothing to gain from INT8")
    return tuple(notes)
