"""`forecast-worker run` with TensorRT against a real broker: every event once, forecasts as ONNX Runtime makes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demo.kafka import EmbeddedKafka
from schemas.engine_card import CARD_NAME, Profile, load_card, write_card
from tests.helpers.real_gpu import built, plan_entry, require_gpu
from tests.helpers.workers import ROOT, Job

EVENTS = 3000
MODEL = ROOT / "models" / "freshretailnet-transformer"
TOLERANCE = 0.01
"""Relative, of forecasts in units: FP32 here and there, summed in another order."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The primary model with a plan for this GPU."""
    require_gpu()
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    profiles = (Profile(min_rows=1, opt_rows=256, max_rows=512),)
    content = built((folder / "model.onnx").read_bytes(), profiles)
    plan = plan_entry(content, profiles, graph_rows=(16, 64))
    (folder / "plans").mkdir()
    (folder / plan.file).write_bytes(content)
    write_card(load_card(folder / CARD_NAME).model_copy(update={"plans": (plan,)}), folder / CARD_NAME)
    return folder


@pytest.fixture
def broker(model: Path) -> Iterator[EmbeddedKafka]:  # noqa: ARG001 - it skips first
    with EmbeddedKafka() as kafka:
        yield kafka


def done_by(runtime: str, model: Path, broker: EmbeddedKafka, directory: Path) -> dict[str, list[list[float]]]:
    """SKU -> quantiles, of all events, worked off by one worker with this runtime, exactly once."""
    names = {kind: f"{kind}-{runtime}" for kind in ("features", "forecasts", "dead")}
    for name in names.values():
        broker.create_topic(name, partitions=4)
    job = Job(
        bootstrap=broker.bootstrap_servers,
        source=names["features"],
        forecasts=names["forecasts"],
        dead_letters=names["dead"],
        directory=directory,
        extra={
            "engine": {"model": str(model), "runtime": runtime, "slots": 3},
            "guard": {"without_backup": "publish"},  # the events are random, the model knows FreshRetailNet's
        },
    )
    job.send(range(EVENTS))
    with job.worker(runtime) as worker:
        worker.wait_ready()
        job.wait_done(job.ends())
        assert ("plan loaded" in worker.log) == (runtime == "tensorrt")
        assert worker.stop() == 0
    job.assert_exactly_once()
    assert not job.letters()
    return {message["sku_id"]: message["quantiles"] for _, message in job.published()}


@pytest.mark.kafka
def test_exactly_once_and_the_same_numbers_as_onnx_runtime(model: Path, broker: EmbeddedKafka, tmp_path: Path) -> None:
    by_tensorrt = done_by("tensorrt", model, broker, tmp_path)
    by_onnx = done_by("onnx", model, broker, tmp_path)
    assert len(by_tensorrt) == EVENTS
    assert by_tensorrt.keys() == by_onnx.keys()
    for sku, quantiles in by_onnx.items():
        np.testing.assert_allclose(by_tensorrt[sku], quantiles, rtol=TOLERANCE, atol=TOLERANCE)
