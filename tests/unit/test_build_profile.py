"""`engine-build profile`: from the text of a worker's /metrics to the value that `build --profile` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engine_build.__main__ import main
from engine_build.traffic import parse_profile
from schemas.engine_card import Profile, load_card, write_card
from schemas.model_store import open_version
from tests.helpers.gpu_engines import plan_of
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import Rig, event, key
from worker.metrics import StatisticsCollector

MODEL = Path(__file__).parents[2] / "models" / "bakery-smoother"


def measured(rows_per_step: tuple[int, ...], folder: Path) -> Path:
    """The text of a worker that met so many rows at a time."""
    rig = Rig(MemoryBroker(1), max_rows=256)
    rig.source.assign(0)
    for rows in rows_per_step:
        for number in range(rows):
            rig.broker.append(0, key(f"sku{number}"), event(f"sku{number}"))
        rig.settle()
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(lambda: rig.worker.statistics, rig.clock))
    path = folder / "metrics.txt"
    rig.clock.advance(10.0)
    rig.worker.step()
    path.write_bytes(generate_latest(registry))
    return path


def proposed(capsys: pytest.CaptureFixture[str], *options: str | Path) -> str:
    assert main(["profile", *map(str, options)]) == 0
    return capsys.readouterr().out.split()[-1]


def test_rows_per_commit_give_the_maximum_and_rows_per_batch_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = measured((40,) * 6 + (200,) * 2, tmp_path)
    profile = parse_profile(proposed(capsys, "--prometheus", metrics, "--headroom", "0")).profile
    assert profile == Profile(min_rows=2, opt_rows=192, max_rows=256)
    assert proposed(capsys, "--prometheus", metrics) == "2:192:320@64,256"


def test_a_proposal_is_taken_by_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="only for Linux on x86_64")
    profile = proposed(capsys, "--prometheus", measured((3, 5, 40, 40), tmp_path))
    arguments = ["build", "--onnx", MODEL / "model.onnx", "--out", tmp_path, "--target", "sm80", "--precision", "fp32"]
    assert main([*map(str, arguments), "--profile", profile]) == 0
    (plan,) = open_version(tmp_path / MODEL.name, load_card(MODEL / "card.json").version).card.plans
    parsed = parse_profile(profile)
    assert (plan.profiles, plan.cuda_graph_rows) == ((parsed.profile,), parsed.cuda_graph_rows)


def test_memory_bounds_the_maximum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = measured((200,) * 4, tmp_path)
    bounded = proposed(capsys, "--prometheus", metrics, "--memory-mib", "1", "--row-bytes", str(1 << 13))
    assert parse_profile(bounded).profile.max_rows == 128
    card = load_card(MODEL / "card.json")
    profiles = (Profile(min_rows=1, opt_rows=64, max_rows=1024),)
    plans = (
        plan_of(b"unmeasured", file="plans/unmeasured.plan"),
        plan_of(b"measured", profiles=profiles, device_memory_bytes=1024 << 13),
    )
    write_card(card.model_copy(update={"plans": plans}), tmp_path / "card.json")
    assert proposed(capsys, "--prometheus", metrics, "--memory-mib", "1", "--card", tmp_path / "card.json") == bounded


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--row-bytes", "8"], "says what a row takes, not what there is; give --memory-mib"),
        (["--memory-mib", "8"], "needs what a row takes; give --card of a published version or --row-bytes"),
        (["--memory-mib", "8", "--card", str(MODEL / "card.json")], "has no plan whose memory was measured on a GPU"),
    ],
)
def test_half_a_bound_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--prometheus", "unread", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--headroom", "-1"], ["--headroom", "nan"], ["--memory-mib", "0"]])
def test_impossible_numbers_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["profile", "--prometheus", "unread", *wrong])
    assert f"argument {wrong[0]}: got {wrong[1]}, expected" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--prometheus", str(tmp_path / "none")]) == 2
    assert "can't be read" in capsys.readouterr().err
