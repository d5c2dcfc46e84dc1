"""The TensorRT engine on fake CUDA: made by the real loader from a fake plan, in a folder as a version has it."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.engine_card import EngineCard, Plan, Profile, load_card
from tests.helpers.clock import ManualClock
from tests.helpers.engines import expected_forecasts
from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.models import schema_for, tiny_model
from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_tensorrt import FakeTensorRt, fake_plan
from worker.cuda import Cuda
from worker.engine import Engine
from worker.tensorrt_engine import TensorRtEngine
from worker.tensorrt_load import Device, load_engine
from worker.tensorrt_runtime import TensorRtLibrary

INPUTS: Mapping[str, int | None] = {"sales": 30, "price": None}
HORIZON = 3
QUANTILES = (0.1, 0.5, 0.9)


@dataclass
class FakeGpu:
    """A GPU, the library on it, and a clock that moves only while somebody pauses."""

    fake: FakeCuda = field(default_factory=FakeCuda)
    modern: bool = False
    version: str = "8.6.1"

    def __post_init__(self) -> None:
        gc.freeze()  # what is there already can't be this GPU's garbage, and looking through it takes 70 ms
        self.api = FaultyCuda(self.fake, self.fake.lose)
        self.tensorrt = FakeTensorRt(self.fake, version=self.version, modern=self.modern)
        self.clock = ManualClock()
        self.cuda = Cuda(self.api)
        self.device = Device(
            cuda=self.cuda,
            library=TensorRtLibrary(self.tensorrt, "tensorrt"),
            clock=self.clock,
            pause=self.clock.advance,
        )

    def assert_empty(self) -> None:
        """Nothing of an engine is left."""
        gc.collect()
        gc.unfreeze()
        self.fake.assert_empty()


def plan_of(content: bytes, **changes: Any) -> Plan:
    """What a card would say of these bytes."""
    said: dict[str, Any] = {
        "file": "plans/fake.plan",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "graph_sha256": "0" * 64,
        "precision": "fp16",
        "runtime": "tensorrt",
        "runtime_version": "8.6.1",
        "compute_capabilities": ("9.0",),
        "profiles": (Profile(min_rows=1, opt_rows=8, max_rows=16),),
        "relative_tolerance": 1e-3,
        "absolute_tolerance": 1e-3,
    }
    return Plan(**{**said, **changes})


@dataclass
class PlanFolder:
    """A version's folder with a model, its card, and one fake plan."""

    folder: Path
    inputs: Mapping[str, int | None] = field(default_factory=lambda: INPUTS)
    horizon: int = HORIZON
    quantiles: tuple[float, ...] = QUANTILES
    profiles: Sequence[tuple[int, int, int]] = ((1, 8, 16),)
    graph_rows: tuple[int, ...] = ()
    plan_changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = max(profile[2] for profile in self.profiles)
        tiny_model(self.folder, inputs=self.inputs, horizon=self.horizon, quantiles=self.quantiles, max_rows=most)
        self.content = fake_plan(
            self.inputs,
            horizon=self.horizon,
            quantiles=self.quantiles,
            profiles=self.profiles,
            **self.plan_changes,
        )
        (self.folder / "plans").mkdir()
        self.path = self.folder / "plans" / "fake.plan"
        self.path.write_bytes(self.content)

    @property
    def card(self) -> EngineCard:
        return load_card(self.folder / "card.json")

    @property
    def plan(self) -> Plan:
        profiles = tuple(Profile(min_rows=a, opt_rows=b, max_rows=c) for a, b, c in self.profiles)
        return plan_of(self.content, cuda_graph_rows=self.graph_rows, profiles=profiles)

    def load(
        self, gpu: FakeGpu, *, slots: int = 2, max_rows: int | None = None, plan: Plan | None = None
    ) -> TensorRtEngine:
        """With batches as large as the profiles allow, if nothing else is asked for."""
        return load_engine(
            self.path,
            plan or self.plan,
            self.card,
            schema_for(self.inputs),
            gpu.device,
            slots=slots,
            max_rows=max_rows or max(profile[2] for profile in self.profiles),
        )


def right(engine: Engine, rows: int) -> bool:
    """Whether it computes a batch of `rows` rows."""
    slot = engine.acquire()
    assert slot is not None
    random = np.random.default_rng(rows)
    for column in slot.columns.values():
        column[:rows] = random.uniform(0.0, 50.0, column[:rows].shape)
    wanted = expected_forecasts(slot.columns, rows, horizon=HORIZON, quantiles=QUANTILES)
    values = engine.collect(engine.submit(slot, rows)).values
    same = bool(np.allclose(values, wanted, rtol=1e-5))
    engine.release(slot)
    return same
