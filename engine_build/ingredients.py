"""From what was asked for to graphs at each precision with their accuracy: all that comes before TensorRT."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_build.calibration import Calibration
from engine_build.choice import ORDER
from engine_build.errors import InputError
from engine_build.evaluation import EvaluationSet, Verdict, accuracy, compare, compare_to_fp32
from engine_build.graph import Graph
from engine_build.onnx_run import Columns, FloatArray, OnnxRun
from engine_build.plan import GraphBytes
from engine_build.precision import PrecisionGraph, Workpiece, write_fp16, write_int8
from engine_build.prove import Golden, pointwise_error
from engine_build.release import Ingredients
from schemas.engine_card import Accuracy, EngineCard, Precision
from schemas.model_store import Version


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Rows to work with. golden: always there. calibration, evaluation: if they were named."""

    golden: Golden
    calibration: Calibration | None
    evaluation: EvaluationSet | None

    @property
    def columns(self) -> Columns:
        """Rows to find out with what half precision does: the calibration's, else the golden ones."""
        return self.golden.inputs if self.calibration is None else self.calibration.columns

    @property
    def judged(self) -> Columns:
        """Rows that accuracy is judged on: the evaluation set's, else those above."""
        return self.columns if self.evaluation is None else self.evaluation.columns


def wanted_precisions(asked: str, *, has_int8: bool) -> tuple[Precision, ...]:
    """The precisions to build, from the most precise on. has_int8: calibration rows or a published INT8 graph are there."""
    if asked == "auto":
        return tuple(each for each in ORDER if each != "int8" or has_int8)
    (found,) = (each for each in ORDER if each == asked)
    if found == "int8" and not has_int8:
        raise InputError("--precision int8", ["needs rows to find scales from; name them with --calibration"])
    return (found,)


def gather(
    graph: Graph, card: EngineCard, data: Data, asked: str, published: Version | None, folder: Path
) -> Ingredients:
    """Graphs at each precision wanted, from the published version where it has them, else made here in `folder`.

    Raises `InputError`.
    """
    there = {} if published is None else published.card.graphs
    precisions = wanted_precisions(asked, has_int8=data.calibration is not None or "int8" in there)
    work = Workpiece(graph.path, data.columns)
    reference = work.forecasts if data.evaluation is None else OnnxRun(graph.path).forecasts(data.judged)
    graphs, notes = [], dict[Precision, Any]()
    measured, problems = dict[Precision, Accuracy](), dict[Precision, tuple[str, ...]]()
    for precision in precisions:
        if published is not None and precision in there:
            path = published.folder / there[precision].file
            notes[precision] = {"method": "taken from the published version"}
        else:
            path, notes[precision] = _made(precision, work, folder)
        graphs.append(_bytes(precision, path, data, published))
        found = reference if precision == "fp32" else OnnxRun(path).forecasts(data.judged)
        measured |= _accuracy(precision, found, card, data)
        if precision != "fp32":
            verdict = _gate(found, reference, card, data)
            problems[precision], notes[precision]["accuracy"] = verdict.reasons, str(verdict)
    return Ingredients(
        model=graph.path.read_bytes(),
        graphs=tuple(graphs),
        notes=notes,
        accuracy=measured,
        problems=problems,
        calibration=None if data.calibration is None else _described(data.calibration),
    )


def _made(precision: Precision, work: Workpiece, folder: Path) -> tuple[Path, dict[str, Any]]:
    if precision == "fp32":
        return work.source, {"method": "the model itself"}
    target = folder / f"{precision}.onnx"
    made: PrecisionGraph = write_fp16(work, target) if precision == "fp16" else write_int8(work, target)
    facts = dataclasses.asdict(made)
    return target, {name: value for name, value in facts.items() if name != "path"}


def _bytes(precision: Precision, path: Path, data: Data, published: Version | None) -> GraphBytes:
    digest = data.calibration.digest if precision == "int8" and data.calibration is not None else None
    if precision == "int8" and published is not None and "int8" in published.card.graphs:
        digest = next((plan.calibration_sha256 for plan in published.card.plans if plan.precision == "int8"), None)
    own_error = 0.0
    if precision != "fp32":
        own_error = pointwise_error(OnnxRun(path).forecasts(data.golden.inputs), data.golden)
    return GraphBytes.of(precision, path.read_bytes(), calibration_sha256=digest, own_error=own_error)


def _accuracy(
    precision: Precision, forecasts: FloatArray, card: EngineCard, data: Data
) -> Mapping[Precision, Accuracy]:
    if data.evaluation is None:
        # What the card says of FP16 and INT8 was measured on other graphs than the ones made here.
        return {"fp32": card.accuracy["fp32"]} if precision == "fp32" and "fp32" in card.accuracy else {}
    return {precision: accuracy(forecasts, data.evaluation.actual, card.quantiles)}


def _gate(found: FloatArray, reference: FloatArray, card: EngineCard, data: Data) -> Verdict:
    """Whether forecasts of the judged rows are accurate enough. reference: FP32's of the same rows."""
    if data.evaluation is not None:
        found_accuracy, true_accuracy = (
            accuracy(each, data.evaluation.actual, card.quantiles) for each in (found, reference)
        )
        return compare(found_accuracy, true_accuracy)
    verdict = compare_to_fp32(found, reference, card.quantiles)
    if data.calibration is None:
        return dataclasses.replace(verdict, basis="the golden rows against FP32's own forecasts")
    return verdict


def _described(calibration: Calibration) -> dict[str, Any]:
    return {"sha256": calibration.digest, **dataclasses.asdict(calibration.coverage)}
