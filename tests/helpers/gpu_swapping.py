"""Published versions with plans for the simulated GPU, and what loads them there as the composition root does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.engine_card import CARD_NAME, EngineCard, Profile, load_card, write_card
from schemas.load import load_schema
from tests.helpers.gpu_engines import FakeGpu, plan_of
from tests.helpers.models import INPUTS
from tests.helpers.simulated_tensorrt import fake_plan
from tests.helpers.store import TestStore
from tests.helpers.swapping import CountedEngine
from worker.device_room import DeviceRoom
from worker.engine import Engine
from worker.plan_loading import Machine, Model, load_model, load_standby
from worker.settings import Settings, load_settings

SCHEMA = load_schema(None, "sku_features")
PROFILE = (1, 4, 8)


class GpuSwapping:
    """The GPU of `Swapping`: sixteen MiB."""

    def __init__(self, store: TestStore, *settings: str, gpu: FakeGpu | None = None) -> None:
        self.gpu = gpu or FakeGpu()
        self.settings = settings_for(store.folder, *settings)
        self.machine = Machine(
            cuda=lambda: self.gpu.cuda, library=lambda _: self.gpu.device.library, run=lambda _: (1, "no builder")
        )
        self.room = DeviceRoom(self.settings, self.machine)
        self.standbys: list[CountedEngine] = []

    def make(self, model: Path, card: EngineCard) -> Engine:
        return load_model(self.settings, model, card, SCHEMA, self.machine)

    def make_standby(self, model: Path, card: EngineCard, engine: Engine) -> Engine | None:
        made = load_standby(self.settings, Model(path=model, card=card), SCHEMA, engine)
        if made is None:
            return None
        made.close()
        self.standbys.append(CountedEngine.load(model, card, SCHEMA, slots=2, max_rows=8, threads=1))  # type: ignore[arg-type]
        return self.standbys[-1]


def settings_for(folder: Path, *more: str) -> Settings:
    return load_settings(
        None,
        [
            *("kafka.bootstrap.servers=localhost:9092", "delivery.transactional_id=t", f"engine.model={folder}"),
            *("batching.max_rows=8", "models.headroom_bytes=0", *more),
        ],
        {},
    )


def with_plan(*, weight_bytes: int = 5000, graph: int = 0, **changes: Any) -> Callable[[Path], None]:
    """A spoiler for `TestStore.publish` that adds a plan; `changes` are what the card says of it. graph: tells plans apart."""

    def spoil(folder: Path) -> None:
        card = load_card(folder / CARD_NAME)
        content = fake_plan(
            INPUTS,
            horizon=card.horizon,
            quantiles=card.quantiles,
            profiles=[PROFILE],
            weight_bytes=weight_bytes,
            scratch_bytes=3000 + 256 * graph,
        )
        (folder / "plans").mkdir()
        (folder / "plans" / "fake.plan").write_bytes(content)
        least, usual, most = PROFILE
        profiles = (Profile(min_rows=least, opt_rows=usual, max_rows=most),)
        plan = plan_of(content, profiles=profiles, **changes)
        write_card(card.model_copy(update={"plans": (plan,)}), folder / CARD_NAME)

    return spoil
