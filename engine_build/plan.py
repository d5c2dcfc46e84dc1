"""From a graph at one precision to a plan: built, proved, measured, and described as the card will have it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from engine_build.allowances import ALLOWANCES, Allowance
from engine_build.device_run import DeviceRunner
from engine_build.errors import PlanError, ProofError
from engine_build.measure import Measurement, measure
from engine_build.members import Members, arranged
from engine_build.prove import Golden, Proof, Tolerance, prove, prove_structure, tolerance_of
from engine_build.trt import Library
from engine_build.trt_types import BuildRequest, Built, Progress
from schemas.engine_card import EngineCard, Plan, Precision, Profile
from schemas.plan_choice import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBytes:
    """An ONNX graph at one precision.

    calibration_sha256: of the rows that INT8 scales come from, None without any. own_error: `prove.pointwise_error` of its
    forecasts of the golden rows by ONNX Runtime.
    """

    precision: Precision
    content: bytes
    sha256: str
    calibration_sha256: str | None = None
    own_error: float = 0.0

    @classmethod
    def of(
        cls, precision: Precision, content: bytes, *, calibration_sha256: str | None = None, own_error: float = 0.0
    ) -> Self:
        """The graph in `content`, with its digest."""
        digest = hashlib.sha256(content).hexdigest()
        return cls(
            precision=precision,
            content=content,
            sha256=digest,
            calibration_sha256=calibration_sha256,
            own_error=own_error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where plans are built and for what.

    library: builds. cuda: cuda-python's runtime module, None without. gpu: of this machine, None without.
    targets: compute capabilities to build for instead of this machine's GPU.
    """

    library: Library
    cuda: Any
    gpu: Gpu | None
    targets: tuple[str, ...] = ()

    @property
    def on_device(self) -> bool:
        """Whether the plans can run here."""
        return self.gpu is not None and not self.targets

    @property
    def bound_to(self) -> str | None:
        """The only GPU type that may load the plans; None if all with their compute capability may (TensorRT-RTX)."""
        bound = self.gpu is not None and self.on_device and not self.library.targets
        return self.gpu.name if self.gpu is not None and bound else None

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that the plans are for. Raises `PlanError` if there are none."""
        if self.targets:
            return self.targets
        if self.gpu is None:
            offered = ", ".join(f"sm{each.replace('.', '')}" for each in self.library.targets)
            remedy = f"name --target, of {offered}" if offered else "install tensorrt_rtx, which builds for absent GPUs"
            raise PlanError(
                f"there is no GPU here that CUDA shows, so {self.library.runtime} can't build for it; {remedy}"
            )
        return (self.gpu.compute_capability,)

    @property
    def label(self) -> str:
        """Part of file names: the GPU or the targets, and the library. `nvidia-h200-trt8.6.1`, `sm80-sm89-rtx1.7.1.116`."""
        capabilities = self.capabilities
        named = (
            self.gpu.name
            if self.gpu and not self.targets
            else "-".join(f"sm{each.replace('.', '')}" for each in capabilities)
        )
        slug = re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")
        runtime = self.library.runtime
        return f"{slug}-{'trt' if runtime.name == 'tensorrt' else 'rtx'}{runtime.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPlan:
    """A plan that passed its proof, or why it didn't.

    entry, content: for the card and the file; None if there is nothing to publish. problems: then why. proof, measurement:
    None without a device. built_s: seconds that building took.
    """

    precision: Precision
    entry: Plan | None
    content: bytes
    problems: tuple[str, ...]
    built: Built | None
    proof: Proof | None
    measurement: Measurement | None
    built_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrder:
    """What to build for every precision alike. profiles: rows. golden: to prove with; allowances: by how much a plan may then
    differ, by precision. members: see `Members`. workspace_bytes, optimization_level, timing_cache: see `BuildRequest`.
    """

    card: EngineCard
    golden: Golden
    profiles: tuple[Profile, ...]
    cuda_graph_rows: tuple[int, ...] = ()
    members: Members = "auto"
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    allowances: Mapping[Precision, Allowance] = field(default_factory=lambda: ALLOWANCES)


def build_plan(
    site: Site, order: PlanOrder, graph: GraphBytes, *, progress: Progress | None, clock_s: Callable[[], float]
) -> BuiltPlan:
    """Build, prove and (on a device) measure one plan. A failed proof is a result, not an exception.

    Raises `GraphError`, `PlanError`, `OutOfMemoryError`.
    """
    request = BuildRequest(
        source=f"{order.card.model} {graph.precision}",
        graph=arranged(graph.content, graph.precision, order.members),
        precision=graph.precision,
        profiles=order.profiles,
        targets=site.targets,
        workspace_bytes=order.workspace_bytes,
        optimization_level=order.optimization_level,
        free_bytes=site.gpu.free_bytes if site.gpu is not None and site.on_device else None,
        timing_cache=order.timing_cache,
    )
    capabilities = site.capabilities
    began_s = clock_s()
    built = site.library.build(request, progress)
    built_s = clock_s() - began_s
    proof = measurement = None
    try:
        prove_structure(built.tensors, order.card, order.profiles)
        if site.on_device:
            proof, measurement = _on_device(site, order, _tolerance(order, graph), built.plan)
    except ProofError as error:
        return BuiltPlan(
            precision=graph.precision,
            entry=None,
            content=b"",
            problems=(str(error),),
            built=built,
            proof=None,
            measurement=None,
            built_s=built_s,
        )
    return BuiltPlan(
        precision=graph.precision,
        entry=_entry(site, order, graph, built.plan, capabilities, measurement),
        content=built.plan,
        problems=(),
        built=built,
        proof=proof,
        measurement=measurement,
        built_s=built_s,
    )


def _tolerance(order: PlanOrder, graph: GraphBytes) -> Tolerance:
    return tolerance_of(order.allowances[graph.precision], order.card, order.golden, graph.own_error)


def _on_device(site: Site, order: PlanOrder, tolerance: Tolerance, plan: bytes) -> tuple[Proof, Measurement]:
    (profile, *_) = order.profiles
    prove_structure(site.library.facts(plan).tensors, order.card, order.profiles)
    with DeviceRunner(site.library, site.cuda, plan, profile) as runner:
        proof = prove(runner, order.golden, profile, tolerance)
        return proof, measure(runner, order.golden.inputs, profile)


def _entry(
    site: Site,
    order: PlanOrder,
    graph: GraphBytes,
    content: bytes,
    capabilities: Sequence[str],
    measurement: Measurement | None,
) -> Plan:
    digest = hashlib.sha256(content).hexdigest()
    tolerance = _tolerance(order, graph)
    return Plan(
        file=f"plans/{site.label}-{graph.precision}-{digest[:12]}.plan",
        sha256=digest,
        size_bytes=len(content),
        graph_sha256=graph.sha256,
        precision=graph.precision,
        runtime=site.library.runtime.name,
        runtime_version=site.library.runtime.version,
        compute_capabilities=tuple(capabilities),
        gpu=site.bound_to,
        profiles=order.profiles,
        cuda_graph_rows=order.cuda_graph_rows,
        device_memory_bytes=None if measurement is None else measurement.device_memory_bytes,
        calibration_sha256=graph.calibration_sha256,
        relative_tolerance=tolerance.relative,
        absolute_tolerance=tolerance.absolute,
        proved="structure" if measurement is None else "device",
    )
