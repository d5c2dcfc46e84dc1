"""`--explain`: what a build would do, and why, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import onnx

from engine_build.choice import MIN_GAIN
from engine_build.graph import Graph
from engine_build.members import Members, in_turn
from engine_build.plan import PlanOrder, Site
from engine_build.prove import proof_sizes, tolerance_of
from schemas.engine_card import Precision
from schemas.model_store import Version

_MEMBERS: Final[Mapping[Members, str]] = {
    "auto": "in turn at INT8, for its memory, unless recurrent; else together",
    "together": "together",
    "in-turn": "in turn, so that a plan holds the values of one at a time",
}


def explained(
    graph: Graph, site: Site, order: PlanOrder, precisions: Sequence[Precision], published: Version | None
) -> Iterator[str]:
    """The sentences, in the order of the work."""
    card, (profile, *_) = order.card, order.profiles
    yield f"model: {graph.path}, {graph.nodes:,} nodes, opset {graph.opset}; it fits the feature schema"
    yield f"publishes to: {card.model} version {card.version}" + (
        ", which is new" if published is None else ", which is there: plans are added, its graphs are used again"
    )
    yield f"precisions: {', '.join(precisions)}" + (
        ""
        if "int8" in precisions
        else "; no INT8, for which --calibration rows are needed or another precision was named"
    )
    where = site.gpu.name if site.gpu is not None and site.on_device else "absent GPUs"
    yield f"builds with: {site.library.runtime} for {where}, compute capability {', '.join(site.capabilities)}"
    rows = f"{profile.min_rows} : {profile.opt_rows} : {profile.max_rows}"
    yield f"batch sizes: {rows} rows; CUDA graphs for {list(order.cuda_graph_rows) or 'none'}"
    waiting = in_turn(onnx.load(str(graph.path)))[1]
    found = f"{_MEMBERS[order.members]} ({waiting} would wait)" if waiting else "none found"
    yield f"members of an ensemble: {found}"
    if not site.library.has_progress:
        yield "progress: this TensorRT doesn't tell how far it is; the elapsed time is shown"
    if order.timing_cache is not None:
        used = site.library.has_timing_cache
        yield f"timing cache: {order.timing_cache.name if used else 'none, this library times nothing while building'}"
    for precision in precisions:
        allowance = order.allowances[precision]
        tolerance = tolerance_of(allowance, card, order.golden)
        own = f" (at least {allowance.own:g} times what its graph differs on the CPU)" if allowance.own else ""
        yield (
            f"{precision} may differ from FP32 by {tolerance.relative:g} of a value and {tolerance.absolute:.3g} more{own}, "
            f"in sum by {tolerance.summed:.1%}"
        )
    if site.on_device:
        yield f"proves: on this GPU, {order.golden.rows} golden rows at {list(proof_sizes(profile))} rows, and with other rows beside them"
        yield f"chooses: the fastest that passes; a lower precision must be {MIN_GAIN:.0%} faster than a higher one"
    else:
        yield "proves: names, types, shapes and batch sizes only, for want of such a GPU; the card says `structure`"
        yield "chooses: nothing can be measured, so all that pass are published, FP16 preferred, INT8 last"
