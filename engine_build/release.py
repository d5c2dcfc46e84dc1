"""From graphs at several precisions to a release: every plan built, proved, measured; one chosen; all of it reported."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine_build.choice import Candidate, Decision, choose
from engine_build.errors import AccuracyError, GraphError, PlanError, ProofError
from engine_build.plan import BuiltPlan, GraphBytes, PlanOrder, Site, build_plan
from engine_build.prove import Golden
from engine_build.publish import Release
from engine_build.report import report_of
from engine_build.trt_types import Progress
from schemas.engine_card import Accuracy, Precision

OUTPUT = "forecast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What plans are built from.

    model: bytes of `model.onnx`. graphs: one for each precision wanted, FP32 (the model itself) among them if it is wanted.
    notes: by precision, how the graph was made. accuracy: by precision, measured with ONNX Runtime; problems: why a precision
    may not be published, found before anything is built. calibration: what the report says of it.
    """

    model: bytes
    graphs: tuple[GraphBytes, ...]
    notes: Mapping[Precision, Any]
    accuracy: Mapping[Precision, Accuracy]
    problems: Mapping[Precision, tuple[str, ...]]
    calibration: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """release: None if nothing passed. report: as JSON."""

    release: Release | None
    decision: Decision
    plans: tuple[BuiltPlan, ...]
    report: dict[str, Any]


def make_release(
    site: Site,
    order: PlanOrder,
    ingredients: Ingredients,
    *,
    progress_of: Callable[[Precision], Progress | None],
    clock_s: Callable[[], float],
    made_at: str,
) -> Outcome:
    """Build a plan from each graph that has no problem yet, and choose. `progress_of` hears each build.

    A precision that can't be built, or fails its proof, is out; if it was the only one asked for and can't be built, that
    raises `GraphError` or `PlanError`.
    """
    fit = [graph for graph in ingredients.graphs if not ingredients.problems.get(graph.precision)]
    plans = [
        _built(site, order, graph, progress_of(graph.precision), clock_s, alone=len(ingredients.graphs) == 1)
        for graph in fit
    ]
    gates = [(precision, problems) for precision, problems in ingredients.problems.items() if problems]
    decision = choose(
        [
            *(Candidate(precision=precision, problems=problems, rows_per_s=None) for precision, problems in gates),
            *(_candidate(plan) for plan in plans),
        ]
    )
    report = report_of(
        site,
        order,
        plans,
        decision,
        accuracy=ingredients.accuracy,
        graphs=ingredients.notes,
        calibration=ingredients.calibration,
        made_at=made_at,
    )
    release = _release(site, order, ingredients, plans, decision, report) if decision.published else None
    return Outcome(release=release, decision=decision, plans=tuple(plans), report=report)


def require_published(outcome: Outcome) -> Release:
    """The release. Raises what kept every precision from being published."""
    if outcome.release is not None:
        return outcome.release
    text = "nothing passed, so nothing is published:\n" + "\n".join(f"  - {each}" for each in outcome.decision.reasons)
    if any(plan.problems for plan in outcome.plans):
        raise ProofError(text)
    raise AccuracyError(text)


def npz_bytes(golden: Golden) -> bytes:
    """`golden.npz`: the inputs by name, and `forecast`, what ONNX Runtime computes from them in FP32."""
    buffer = io.BytesIO()
    arrays = {**golden.inputs, OUTPUT: golden.outputs}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes its own option first
    return buffer.getvalue()


def _built(
    site: Site,
    order: PlanOrder,
    graph: GraphBytes,
    progress: Progress | None,
    clock_s: Callable[[], float],
    *,
    alone: bool,
) -> BuiltPlan:
    """The plan; one that can't be built is out, and an error if it was the only one asked for."""
    try:
        return build_plan(site, order, graph, progress=progress, clock_s=clock_s)
    except (GraphError, PlanError) as error:
        if alone:
            raise
        return BuiltPlan(
            precision=graph.precision,
            entry=None,
            content=b"",
            problems=(str(error),),
            built=None,
            proof=None,
            measurement=None,
            built_s=0.0,
        )


def _candidate(plan: BuiltPlan) -> Candidate:
    speed = None if plan.measurement is None else plan.measurement.rows_per_s
    return Candidate(precision=plan.precision, problems=plan.problems, rows_per_s=speed)


def _release(
    site: Site,
    order: PlanOrder,
    ingredients: Ingredients,
    plans: list[BuiltPlan],
    decision: Decision,
    report: Mapping[str, Any],
) -> Release:
    by_precision = {plan.precision: plan for plan in plans}
    graphs = {graph.precision: graph.content for graph in ingredients.graphs}
    chosen = []
    for precision in decision.published:
        plan = by_precision[precision]
        if plan.entry is None:
            raise PlanError(f"{precision}: chosen without a plan")
        chosen.append((plan.entry, plan.content))
    return Release(
        card=order.card.model_copy(update={"accuracy": dict(ingredients.accuracy)}),
        model=ingredients.model,
        golden=npz_bytes(order.golden),
        graphs={precision: graphs[precision] for precision in decision.published if precision != "fp32"},
        plans=tuple(chosen),
        report=report,
        report_name=site.label,
    )
