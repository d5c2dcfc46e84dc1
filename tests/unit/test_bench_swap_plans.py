from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from bench.swap_plans import BROKEN, PlanStore
from bench.swaps_tensorrt import growth_percent, mean_seconds, sound
from schemas.engine_card import CARD_NAME, Plan, load_card, sha256_hex, write_card
from tests.helpers.gpu_engines import PlanFolder
from worker.model_status import Phase, counted


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    """Two sources, whose plans differ in precision."""
    sources = []
    for precision in ("fp16", "int8"):
        source = PlanFolder(tmp_path / precision)
        card = load_card(source.folder / CARD_NAME)
        plan = source.plan.model_copy(update={"precision": precision})
        write_card(card.model_copy(update={"plans": (plan,)}), source.folder / CARD_NAME)
        sources.append(source.folder)
    return PlanStore(tmp_path / "store", sources)


def plan_of(folder: Path) -> Plan:
    (plan,) = load_card(folder / CARD_NAME).plans
    return plan


def test_versions_alternate_and_each_has_an_onnx_file_of_its_own(store: PlanStore) -> None:
    versions = [store.publish(f"v{number}") for number in range(4)]
    assert len({version.digest for version in versions}) == 4
    assert [plan_of(store.folder / version.name).precision for version in versions] == ["fp16", "int8", "fp16", "int8"]
    for version in versions:
        graph = store.folder / version.name / "model.onnx"
        assert sha256_hex(graph) == version.digest == plan_of(graph.parent).graph_sha256
        assert onnx.load(graph).doc_string.endswith(version.name)


def test_every_broken_kind_differs_from_a_sound_version(store: PlanStore) -> None:
    store.publish("sound")
    sound = plan_of(store.folder / "sound")
    for number, (kind, spoil) in enumerate(BROKEN.items()):
        folder = store.folder / f"v{number}"
        store.publish(folder.name, spoil=spoil)
        card, plan = load_card(folder / CARD_NAME), plan_of(folder)
        honest = {
            "size": (folder / plan.file).stat().st_size == sound.size_bytes,
            "plan": sha256_hex(folder / plan.file) == plan.sha256,
            "onnx": sha256_hex(folder / "model.onnx") == card.onnx_sha256,
            "gpu": plan.compute_capabilities == sound.compute_capabilities,
            "budget": card.latency_budget_ms is None,
        }
        lies = {name for name, holds in honest.items() if not holds}
        expected = {
            "truncated plan": {"size", "plan"},
            "half a plan that its card agrees with": {"size"},
            "plan of another GPU": {"gpu"},
            "wrong digest": {"onnx"},
            "too slow": {"budget"},
        }
        assert lies == expected[kind]


def test_a_result_is_sound_only_if_order_memory_and_times_are() -> None:
    loaded = {"p99_ratio": 1.2, "met": True, "each_version_once_in_order": True, "refused": {}}
    broken = {"wrong_version_served": [], "device_growth_percent": 0.5, "host_growth_percent": -0.5}
    assert sound(loaded)
    assert sound(broken)
    assert not any(
        sound({**loaded, **change})
        for change in ({"met": False}, {"each_version_once_in_order": False}, {"refused": {"v1": "late"}})
    )
    assert not sound({**broken, "device_growth_percent": -2.5})
    assert not sound({**broken, "host_growth_percent": 2.5})
    assert not sound({**broken, "wrong_version_served": ["v5"]})


def test_loading_is_told_in_its_phases() -> None:
    loads = counted(counted(counted({}, Phase.LOAD, 1.0), Phase.LOAD, 2.0), Phase.PROVE, 0.5)
    assert mean_seconds(loads) == {"load": 1.5, "prove": 0.5}


def test_memory_that_goes_up_and_down_with_the_two_versions_has_not_grown() -> None:
    assert growth_percent([10, 20] * 40) == 0.0
    assert growth_percent([*[10, 20] * 20, *[11, 22] * 20]) == pytest.approx(10.0)
    assert growth_percent([10]) == 0.0
