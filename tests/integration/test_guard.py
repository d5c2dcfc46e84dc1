"""A model that goes wrong while it serves, on a real broker: what is published comes from the backup, and nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.kafka import EmbeddedKafka
from schemas.engine_card import CARD_NAME, OutputHistogram, load_card, write_card
from tests.conftest import TopicFactory
from tests.helpers.models import tiny_model
from tests.helpers.workers import PREFIX, Job, avro, key
from worker.guard_reference import EDGES

EVENTS = 2000
TURNS_WRONG_AT = 1000
SALES = 1000.0


def model(folder: Path, inputs: Mapping[str, int], version: str) -> Path:
    """Forecasts about the recent mean of sales, if promo is 0; NaN where sales and promo together are below 0."""
    tiny_model(folder, inputs=inputs, max_rows=256, nan_below=0.0, version=version)
    shares = [0.0] * (len(EDGES) - 1)
    shares[len(shares) // 2] = 1.0
    histogram = OutputHistogram(mean_of="sales", edges=EDGES.tolist(), shares=shares)
    card = load_card(folder / CARD_NAME)
    write_card(card.model_copy(update={"output_histogram": histogram}), folder / CARD_NAME)
    return folder


@pytest.fixture
def job(kafka: EmbeddedKafka, topics: TopicFactory, tmp_path: Path) -> Job:
    serving = model(tmp_path / "serving", {"sales": 30, "promo": 30}, "new")
    backup = model(tmp_path / "backup", {"sales": 30}, "old")
    return Job(
        bootstrap=kafka.bootstrap_servers,
        source=topics("features"),
        forecasts=topics("forecasts", config={"cleanup.policy": "compact"}),
        dead_letters=topics("dead"),
        directory=tmp_path,
        extra={
            "engine": {"model": str(serving), "backup": str(backup)},
            "batching": {"max_rows": 256, "coalesce": False, "linger_s": 1.0, "max_wait_s": 2.0},
        },
    )


def send(job: Job, wrong_from: int, promo: float) -> None:
    """Events whose promo, which only the serving model looks at, makes it go wrong from the given one on."""
    messages: list[tuple[bytes | None, bytes | None, int]] = []
    for number in range(EVENTS):
        content: dict[str, Any] = {"sku_id": f"sku{number}", "store_id": "store", "as_of": 19_900}
        content |= {"sales": [SALES] * 30, "promo": [promo if number >= wrong_from else 0.0] * 30}
        messages.append((key(number), PREFIX + avro("sku_features", content), number % job.partitions))
    job.send_raw(messages)


def run(job: Job, rule: str) -> list[dict[str, Any]]:
    """Let a worker do it all; the forecasts on the topic, each event's once."""
    with job.worker("w") as worker:
        job.wait_done(dict.fromkeys(range(job.partitions), EVENTS // job.partitions))
        assert worker.metric(f'forecast_worker_roll_backs_total{{rule="{rule}"}}') == 1
        assert worker.stop() == 0, worker.log
    outcomes = job.outcomes()
    assert (len(outcomes), set(outcomes.values())) == (EVENTS, {1})
    assert job.letters() == []
    return [content for _, content in job.published()]


def test_a_model_that_turns_to_nan_half_way_is_rolled_back_and_no_nan_is_published(job: Job) -> None:
    send(job, TURNS_WRONG_AT, -5000.0)
    forecasts = run(job, "fault_share")
    assert np.isfinite([content["quantiles"] for content in forecasts]).all()
    by_number = {int(content["sku_id"].removeprefix("sku")): content for content in forecasts}
    assert {by_number[number]["model_version"] for number in range(TURNS_WRONG_AT, EVENTS)} == {"old"}
    for content in forecasts:
        assert (content["model_version"] == "old") == (content["fallback_reason"] is not None)
    reasons = {content["fallback_reason"] for content in forecasts}
    assert reasons <= {None, "guard:not_finite", "guard:fault_share"}


def test_no_forecast_of_a_model_that_drifted_is_ever_published(job: Job) -> None:
    send(job, 0, SALES)  # twice as much as it should be
    forecasts = run(job, "shift")
    assert {(content["model_version"], content["fallback_reason"]) for content in forecasts} == {("old", "guard:shift")}
    assert max(np.max(content["quantiles"]) for content in forecasts) < 1.1 * SALES
