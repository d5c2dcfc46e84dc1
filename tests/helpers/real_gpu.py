"""The machine's GPU and TensorRT, and versions with plans that were built on it. Skips the test where there is no GPU, only there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine_build.trt import Library
from engine_build.trt import load_library as builder_library
from engine_build.trt_types import BuildRequest
from schemas.engine_card import CARD_NAME, EngineCard, Plan, Profile, load_card, write_card
from schemas.plan_choice import RuntimeName
from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.models import schema_for, tiny_model
from worker.cuda import Cuda, NoGpuError, load_cuda
from worker.tensorrt_engine import TensorRtEngine
from worker.tensorrt_load import Device, load_engine
from worker.tensorrt_runtime import load_library

NAMES: tuple[RuntimeName, ...] = ("tensorrt", "tensorrt_rtx")


def require_gpu() -> Cuda:
    """The GPU, or the test is skipped."""
    try:
        cuda = load_cuda()
        cuda.gpu()
    except NoGpuError as error:
        pytest.skip(str(error))
    return cuda


@cache
def builder() -> Library:
    """The TensorRT that is installed beside the GPU; that there is none is a failure."""
    found = next((library for name in NAMES if (library := builder_library(name)) is not None), None)
    assert found is not None, "there is a GPU, but neither tensorrt nor tensorrt_rtx"
    return found


def real_device() -> Device:
    """The GPU with calls that can be made to fail; skips without one."""
    require_gpu()
    from cuda.bindings import runtime  # noqa: PLC0415 - there only beside a GPU

    return Device(cuda=Cuda(FaultyCuda(runtime)), library=load_library(builder().runtime.name))


@cache
def built(graph: bytes, profiles: tuple[Profile, ...]) -> bytes:
    """A plan of an FP32 graph; built once per session."""
    request = BuildRequest(source="test", graph=graph, precision="fp32", profiles=profiles)
    return builder().build(request).plan


def plan_entry(content: bytes, profiles: tuple[Profile, ...], graph_rows: tuple[int, ...] = (), **changes: Any) -> Plan:
    """What the card says of a plan that was built here."""
    gpu = load_cuda().gpu()
    runtime = builder().runtime
    said: dict[str, Any] = {
        "file": "plans/real.plan",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "graph_sha256": "0" * 64,
        "precision": "fp32",
        "runtime": runtime.name,
        "runtime_version": runtime.version,
        "compute_capabilities": (gpu.compute_capability,),
        "gpu": gpu.name,
        "profiles": profiles,
        "cuda_graph_rows": graph_rows,
        "relative_tolerance": 1e-3,
        "absolute_tolerance": 1e-3,
    }
    return Plan(**{**said, **changes})


@dataclass
class RealVersion:
    """A version's folder with a tiny model and a plan for this GPU, named by the card."""

    folder: Path
    inputs: Mapping[str, int | None]
    horizon: int
    quantiles: tuple[float, ...]
    profiles: tuple[tuple[int, int, int], ...] = ((1, 8, 16),)
    graph_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        most = max(profile[2] for profile in self.profiles)
        tiny_model(self.folder, inputs=self.inputs, horizon=self.horizon, quantiles=self.quantiles, max_rows=most)
        rows = tuple(Profile(min_rows=a, opt_rows=b, max_rows=c) for a, b, c in self.profiles)
        content = built((self.folder / "model.onnx").read_bytes(), rows)
        self.path = self.folder / "plans" / "real.plan"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)
        self.plan = plan_entry(content, rows, self.graph_rows)
        card = load_card(self.folder / CARD_NAME).model_copy(update={"plans": (self.plan,)})
        write_card(card, self.folder / CARD_NAME)

    @property
    def card(self) -> EngineCard:
        return load_card(self.folder / CARD_NAME)

    def load(self, device: Device, *, slots: int = 2, max_rows: int = 16, plan: Plan | None = None) -> TensorRtEngine:
        return load_engine(
            self.path, plan or self.plan, self.card, schema_for(self.inputs), device, slots=slots, max_rows=max_rows
        )
