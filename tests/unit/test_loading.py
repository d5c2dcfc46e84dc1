"""Each step of loading, its refusal, and that nothing of a refused version stays in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.engine_card import EngineCard
from tests.helpers.clock import ManualClock
from tests.helpers.store import TestStore, truncated, with_card
from tests.helpers.swapping import CountedEngine, make
from worker.engine import Engine, EngineSpec
from worker.errors import FatalEngineError
from worker.loading import MODEL_PROBES, Loader, RefusedError, Room
from worker.model_status import DeviceMemory, Phase
from worker.version_choice import VersionId

MIB = 1 << 20


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = TestStore(folder)
        self.version = self.store.publish("v1")
        self.clock = ManualClock()
        self.free_bytes: int | None = None
        self.device: DeviceMemory | None = None
        self.engines: list[CountedEngine] = []
        self.points: list[str] = []
        self.phases: list[tuple[Phase, float]] = []
        self.error: Exception | None = None
        room = Room(slots=2, max_rows=8, headroom_bytes=64 * MIB, host_free=lambda: self.free_bytes, device=self.asked)
        self.loader = Loader(
            store=folder,
            make=self.make,
            room=room,
            clock=self.clock,
            timed=lambda phase, seconds: self.phases.append((phase, seconds)),
            probe=self.points.append,
        )

    def asked(self) -> DeviceMemory | None:
        return self.device

    def make(self, model: Path, card: EngineCard) -> Engine:
        self.clock.advance(2.5)
        if self.error is not None:
            raise self.error
        self.engines.append(make(model, card))
        return self.engines[-1]

    def refused(self, version: VersionId | None = None, like: EngineSpec | None = None) -> RefusedError:
        with pytest.raises(RefusedError) as raised:
            self.loader.load(version or self.version, like)
        assert [engine.closings for engine in self.engines] == [1] * len(self.engines)
        return raised.value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "tiny")


def test_a_sound_version_is_proved_step_by_step(bench: Bench) -> None:
    loaded = bench.loader.load(bench.version)
    assert (loaded.version, loaded.engine) == (bench.version, bench.engines[0])
    assert loaded.engine.spec.version == "v1"
    assert loaded.fitted.reference.control is not None
    assert bench.points == list(MODEL_PROBES[:4])
    assert [phase for phase, _ in bench.phases] == [Phase.CHECK, Phase.ROOM, Phase.LOAD, Phase.PROVE, Phase.WARM]
    assert dict(bench.phases)[Phase.LOAD] == 2.5
    assert bench.engines[0].closings == 0


def test_bytes_that_are_not_the_cards_are_refused_before_anything_is_made(bench: Bench) -> None:
    truncated(bench.store.folder / "v1")
    assert "sha256 is" in str(bench.refused())
    assert (bench.engines, bench.points) == ([], [])


def test_a_version_that_was_published_again_is_another_one(bench: Bench) -> None:
    other = VersionId("v1", "0" * 64)
    error = bench.refused(other)
    assert f"its digest is {bench.version.digest}, expected {'0' * 64}; it was published again" in str(error)
    assert not error.passing


def test_a_version_that_is_gone_is_refused(bench: Bench) -> None:
    assert "there is no version v9; there are: v1" in str(bench.refused(VersionId("v9", "")))


@pytest.mark.parametrize("where", ["host", "device"])
def test_without_room_it_is_refused_for_now_before_the_engine_is_made(bench: Bench, where: str) -> None:
    if where == "host":
        bench.free_bytes = 64 * MIB
    else:
        bench.device = DeviceMemory(used_bytes=0, free_bytes=64 * MIB - 1)
    error = bench.refused()
    assert error.passing
    assert f"{where} memory: needs " in str(error)
    assert bench.engines == []


def test_the_headroom_that_is_left_is_asked_for_on_both_sides(bench: Bench) -> None:
    assert bench.loader.has_headroom()
    bench.free_bytes = 64 * MIB
    bench.device = DeviceMemory(used_bytes=0, free_bytes=64 * MIB)
    assert bench.loader.has_headroom()
    assert bench.loader.device_memory() == bench.device
    bench.device = replace(bench.device, free_bytes=64 * MIB - 1)
    assert not bench.loader.has_headroom()
    bench.device, bench.free_bytes = None, 64 * MIB - 1
    assert not bench.loader.has_headroom()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("no kernel"), "no kernel"), (RuntimeError(), "RuntimeError"), (MemoryError(), "MemoryError")],
)
def test_whatever_a_runtime_raises_is_a_refusal(bench: Bench, error: Exception, reason: str) -> None:
    bench.error = error
    refusal = bench.refused()
    assert (str(refusal), refusal.passing, refusal.__cause__) == (reason, False, error)
    assert [phase for phase, _ in bench.phases][-1] is Phase.LOAD  # its time counts, too


def test_an_error_after_which_no_engine_works_is_no_refusal(bench: Bench) -> None:
    bench.error = FatalEngineError("lost")
    with pytest.raises(FatalEngineError, match="lost"):
        bench.loader.load(bench.version)


def test_other_inputs_than_the_serving_versions_are_refused_with_both(bench: Bench) -> None:
    loaded = bench.loader.load(bench.version)
    same = loaded.engine.spec
    assert bench.loader.load(bench.version, same).version == bench.version
    other = replace(same, inputs={"sales": 7})
    bench.engines.clear()
    error = bench.refused(like=other)
    assert "inputs: got {'sales': 30, 'promo': 30}, the serving version has {'sales': 7}" in str(error)
    assert "can be taken up by a restart only" in str(error)


def test_an_engine_that_does_not_compute_the_golden_batch_is_closed(bench: Bench) -> None:
    def other(folder: Path) -> None:
        from schemas.engine_card import CARD_NAME, load_card  # noqa: PLC0415 - beside its only use

        golden = load_card(folder / CARD_NAME).golden
        shifted = [[[value + 1 for value in day] for day in row] for row in golden.outputs]
        with_card(golden=golden.model_copy(update={"outputs": shifted}))(folder)

    version = bench.store.publish("v2", spoil=other)
    assert "golden batch: row 0" in str(bench.refused(version))
    assert bench.points == ["model_checked", "model_loaded"]
    assert [phase for phase, _ in bench.phases][-1] is Phase.PROVE


def test_an_engine_is_closed_also_when_the_process_is_to_leave(bench: Bench) -> None:
    def stop(point: str) -> None:
        if point == "model_proven":
            raise SystemExit(1)

    bench.loader._probe = stop
    with pytest.raises(SystemExit):
        bench.loader.load(bench.version)
    assert [engine.closings for engine in bench.engines] == [1]


def test_the_largest_plan_counts_for_the_device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def note(where: str, needed: int, *_: Any) -> None:
        asked.append((where, needed))

    monkeypatch.setattr("worker.loading.require_room", note)
    bench.device = DeviceMemory(used_bytes=0, free_bytes=1 << 40)
    plans = [_plan("a", 1000, 5000), _plan("b", 4000, None)]
    version = bench.store.publish("v2", spoil=with_card(plans=tuple(plans)))
    bench.loader.load(version)
    assert [needed for where, needed in asked if where == "device"] == [6000]


def _plan(letter: str, size: int, device: int | None) -> Any:
    from schemas.engine_card import Plan  # noqa: PLC0415 - beside its only use
    from tests.helpers.cards import plan_content  # noqa: PLC0415 - beside its only use

    content = plan_content(
        sha256=letter * 64, file=f"plans/x-{letter * 12}.plan", size_bytes=size, device_memory_bytes=device
    )
    return Plan.model_validate(content)
