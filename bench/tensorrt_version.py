"""Plans for the benchmarks: built from ONNX graphs of each precision on this GPU, and put into a folder that a worker loads."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from engine_build.allowances import ALLOWANCES
from engine_build.members import arranged
from engine_build.prove import Golden, tolerance_of
from engine_build.traffic import LEAST_ROWS
from engine_build.trt import Library
from engine_build.trt_types import BuildRequest
from schemas.engine_card import CARD_NAME, EngineCard, Plan, Precision, Profile, load_card, sha256_hex, write_card
from schemas.model_store import MODEL_NAME
from schemas.plan_choice import Gpu

PROFILE = Profile(min_rows=LEAST_ROWS, opt_rows=2048, max_rows=8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """A plan of one model at one precision. notes: the builder's. inputs: real rows; reference: what ONNX Runtime makes of them in
    FP32.
    """

    model: str
    precision: Precision
    content: bytes
    build_s: float
    notes: tuple[str, ...]
    inputs: Mapping[str, NDArray[np.float32]]
    reference: NDArray[np.float32]

    @property
    def name(self) -> str:
        """`<model>.<precision>`."""
        return f"{self.model}.{self.precision}"


def built(library: Library, graph: Path, workspace_bytes: int | None = None) -> BenchPlan:
    """Build `<model>.<precision>.onnx`, beside which `<model>.npz` lies. Raises what `Library.build` raises."""
    model, _, said = graph.stem.rpartition(".")
    precision: Precision = next(each for each in get_args(Precision) if each == said)
    began_s = time.monotonic()
    request = BuildRequest(
        source=graph.name,
        graph=arranged(graph.read_bytes(), precision),
        precision=precision,
        profiles=(PROFILE,),
        workspace_bytes=workspace_bytes,
    )
    made = library.build(request)
    built_s = time.monotonic() - began_s
    with np.load(graph.with_name(f"{model}.npz")) as rows:
        fields = {name: np.ascontiguousarray(rows[name], np.float32) for name in rows.files}
    return BenchPlan(
        model=model,
        precision=precision,
        content=made.plan,
        build_s=built_s,
        notes=made.notes,
        reference=fields.pop("forecast"),
        inputs=fields,
    )


def write_version(
    folder: Path, model: Path, plan: BenchPlan, library: Library, gpu: Gpu, graph_rows: tuple[int, ...]
) -> tuple[Path, Plan, EngineCard]:
    """`model`'s ONNX file and card in `folder`, with the plan, which the card names. Returns the plan's path and entry."""
    (folder / "plans").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / MODEL_NAME, folder / MODEL_NAME)
    card = load_card(model / CARD_NAME)
    tolerance = tolerance_of(ALLOWANCES[plan.precision], card, Golden.of_card(card))
    entry = Plan(
        file=f"plans/{plan.precision}.plan",
        sha256=hashlib.sha256(plan.content).hexdigest(),
        size_bytes=len(plan.content),
        graph_sha256=sha256_hex(model / MODEL_NAME),
        precision=plan.precision,
        runtime=library.runtime.name,
        runtime_version=library.runtime.version,
        compute_capabilities=(gpu.compute_capability,),
        gpu=gpu.name,
        profiles=(PROFILE,),
        cuda_graph_rows=graph_rows,
        relative_tolerance=tolerance.relative,
        absolute_tolerance=tolerance.absolute,
    )
    path = folder / entry.file
    path.write_bytes(plan.content)
    card = card.model_copy(update={"plans": (entry,), "profile": PROFILE})
    write_card(card, folder / CARD_NAME)
    return path, entry, card
