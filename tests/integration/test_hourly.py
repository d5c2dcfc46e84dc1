"""The rolling rhythm on a real broker: every series every hour, an outage, and what the worker says of it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from demo.events import EventWriter
from demo.hourly import hours, play_hours
from demo.play import Sender
from tests.helpers.series import made_series
from tests.helpers.waiting import wait_until
from tests.helpers.workers import Job

SERIES = 120


def test_the_worker_says_how_fresh_its_keys_are_and_skips_what_an_outage_made_old(job: Job, tmp_path: Path) -> None:
    series = made_series(count=SERIES, days=80)
    schema = tmp_path / "features.avsc"
    schema.write_text(json.dumps(EventWriter(series).schema), encoding="utf-8")
    job.extra = {
        "wire": {"writer_schemas": [str(schema)]},
        "batching": {"coalesce": True, "max_rows": 256},
        "freshness": {"window_s": 3600},
    }
    sender = Sender(job.bootstrap, job.source)

    def play(count: int) -> int:
        return play_hours(islice(hours(series), count), sender, speed=36_000.0, say=lambda _: None)

    assert play(3) == 3 * SERIES
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        wait_until(lambda: worker.metric("forecast_worker_keys_known") == SERIES, "all keys are known")
        assert worker.metric("forecast_worker_keys_fresh_ratio") == 1.0
        assert worker.metric("forecast_worker_superseded_total") > 0
        assert worker.stop() == 0, worker.log
    before = len(job.published())
    play(20)
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    computed = len(job.published()) - before
    assert SERIES <= computed <= 20 * SERIES // 2, "most hours of an outage are skipped"
