"""From what a running worker exports to the profile that a build takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_build.__main__ import main
from engine_build.traffic import parse_profile
from engine_build.trt import load_library
from schemas.engine_card import load_card
from tests.helpers.waiting import wait_until
from tests.helpers.workers import Job

MODEL = Path(__file__).parents[2] / "models" / "bakery-smoother" / "model.onnx"
EVENTS = 600


def test_metrics_of_a_running_worker_become_a_profile_that_build_takes(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if load_library("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx isn't installed: it has wheels for Linux on x86-64 only")
    job.send(range(EVENTS))
    metrics = tmp_path / "metrics.txt"
    with job.worker("only") as worker:
        wait_until(
            lambda: worker.metric("forecast_worker_commit_rows_sum") == EVENTS, "all rows are committed", timeout_s=90.0
        )
        metrics.write_text(worker.get("/metrics")[1])
        commits = worker.metric("forecast_worker_commit_rows_count")
        assert 1 <= commits <= worker.metric('forecast_worker_transactions_total{outcome="committed"}')
        assert worker.stop() == 0
    assert main(["profile", "--prometheus", str(metrics)]) == 0
    text = capsys.readouterr().out.split()[-1]
    proposal = parse_profile(text)
    assert EVENTS / commits <= proposal.profile.max_rows <= 2 * EVENTS
    arguments = ["--onnx", MODEL, "--out", tmp_path, "--target", "sm80", "--precision", "fp32", "--profile", text]
    assert main(["build", *map(str, arguments)]) == 0
    (plan,) = load_card(tmp_path / "bakery-smoother" / "1" / "card.json").plans
    assert (plan.profiles, plan.cuda_graph_rows) == ((proposal.profile,), proposal.cuda_graph_rows)
