"""A swapper and a slot on one thread: the test says when each of the two makes a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty
from typing import Any, Protocol

import numpy as np

from schemas.engine_card import EngineCard
from schemas.load import load_schema
from tests.helpers.clock import ManualClock
from tests.helpers.store import TestStore
from worker.control import Commands, WorkerState
from worker.device_room import DeviceRoom
from worker.engine import Engine
from worker.first_version import first_version
from worker.handover import Handover
from worker.hotswap import EngineSlot
from worker.loading import Loader, Room
from worker.model_status import DeviceMemory, ModelStatus
from worker.onnx_engine import OnnxEngine
from worker.proving import compute, golden_columns
from worker.shadow_run import Trial
from worker.store_listing import StoreView
from worker.swapper import Policy, Swapper

SCHEMA = load_schema(None, "sku_features")


class CountedEngine(OnnxEngine):
    """Knows how often it was closed, and refuses work afterwards."""

    made: list[CountedEngine]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.closings = 0

    def close(self) -> None:
        self.closings += 1
        super().close()


def make(model: Path, card: EngineCard) -> CountedEngine:
    """Two slots of eight rows."""
    engine = CountedEngine.load(model, card, SCHEMA, slots=2, max_rows=8, threads=1)
    assert isinstance(engine, CountedEngine)
    return engine


def no_standby(model: Path, card: EngineCard, engine: Engine) -> Engine | None:  # noqa: ARG001 - as a loader asks
    """A CPU engine needs none."""
    return None


class SwappingGpu(Protocol):
    """What makes engines on a GPU; see `gpu_swapping`."""

    @property
    def room(self) -> DeviceRoom: ...

    def make(self, model: Path, card: EngineCard) -> Engine: ...

    def make_standby(self, model: Path, card: EngineCard, engine: Engine) -> Engine | None: ...


@dataclass
class Swapping:
    """Starts with what `store` has published. `free_bytes`, `device`: memory, as the loader is told.

    gpu: a device that the versions' plans run on; then `device` isn't used, and each version gets a stand-by.
    """

    store: TestStore
    keep_backup: bool = True
    trial: Trial | None = None
    free_bytes: int | None = None
    device: DeviceMemory | None = None
    make: Callable[[Path, EngineCard], Engine] = make
    headroom_bytes: int = 0
    gpu: SwappingGpu | None = None
    clock: ManualClock = field(default_factory=ManualClock)
    commands: Commands = field(default_factory=Commands.none)
    told: list[WorkerState] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.handover = Handover()
        self.view = StoreView(self.store.folder, "tiny")
        room = Room(
            slots=2,
            max_rows=8,
            headroom_bytes=self.headroom_bytes,
            host_free=lambda: self.free_bytes,
            device=lambda: self.device,
        )
        make_standby = no_standby
        if self.gpu is not None:
            room = replace(room, device=self.gpu.room.memory, device_bytes=self.gpu.room.needed_bytes)
            self.make, make_standby = self.gpu.make, self.gpu.make_standby
        self.loader = Loader(
            store=self.store.folder,
            make=self._make,
            make_standby=make_standby,
            room=room,
            clock=self.clock,
            probe=self.points.append,
        )
        first = first_version(self.view, self.loader, self.commands, "tiny", older=True)
        self.slot = EngineSlot(first.loaded.engine, handover=self.handover, versions=[first.loaded.fitted])
        self.swapper = Swapper(
            policy=Policy(model="tiny", worker="w", keep_backup=self.keep_backup, trial=self.trial),
            view=self.view,
            loader=self.loader,
            handover=self.handover,
            first=first,
            clock=self.clock,
            commands=lambda: self.commands,
            tell=self.told.append,
            probe=self.points.append,
        )

    @property
    def status(self) -> ModelStatus:
        return self.handover.status

    @property
    def serving(self) -> Any:
        """The version that serves, as its forecasts say. (Of no fixed type: it changes behind the checker's back.)"""
        return self.slot.serving.spec.version

    @property
    def backup(self) -> Any:
        """The version of the backup; None if there is none. (As above.)"""
        return None if self.slot.backup is None else self.slot.backup.spec.version

    def open(self) -> list[str]:
        """Versions whose engines aren't closed."""
        return sorted(
            engine.spec.version for engine in self.engines if isinstance(engine, CountedEngine) and not engine.closings
        )

    def load(self) -> float:
        """One turn of the loader's thread: take what was reported, act."""
        while True:
            try:
                self.swapper.handle(self.handover.inbox.get_nowait())
            except Empty:
                return self.swapper.turn()

    def look(self) -> float:
        """The folder is looked at."""
        from worker.handover import Look  # noqa: PLC0415 - beside its only use

        self.handover.inbox.put(Look())
        return self.load()

    def step(self) -> str | None:
        """One step of the loop, between two batches."""
        return self.slot.turn_over(lambda engine: id(engine) in self.used)

    def settle(self, turns: int = 12) -> None:
        """Both take turns until nothing changes any more."""
        self.look()
        for _ in range(turns):
            self.step()
            self.load()

    def batch(self) -> None:
        """The serving engine computes a batch, which is offered for comparison."""
        engine = self.slot.serving
        card = make_card(self.store, engine.spec.version)
        columns = golden_columns(card)
        rows = len(card.golden.outputs)
        values = compute(engine, columns, rows)
        padded = {name: np.concatenate([column, column]) for name, column in columns.items()}
        self.slot.sample(engine, padded, values)

    def close(self) -> None:
        """As the composition root does: the loader's side first."""
        self.swapper.close()
        self.slot.close()

    def _make(self, model: Path, card: EngineCard) -> Engine:
        engine = self.make(model, card)
        self.engines.append(engine)
        return engine


def make_card(store: TestStore, name: str) -> EngineCard:
    from schemas.engine_card import CARD_NAME, load_card  # noqa: PLC0415 - beside its only use

    return load_card(store.folder / name / CARD_NAME)
