"""Contender: the worker itself, as `forecast-worker run` assembles and steps it, on one job."""

from __future__ import annotations

import time
from unittest.mock import patch

from bench.job import ContenderError, Job, Outcome, Stopwatch, job_from_arguments, report
from bench.noop_engine import NoopEngine
from schemas.load import Schema
from worker import compose, compose_worker
from worker.collector import freeze_objects
from worker.compose import assembled
from worker.deadline import Deadline
from worker.engine import Engine
from worker.logs import configure_logs
from worker.memory_return import separate_arenas
from worker.settings import Settings
from worker.statistics import Stage, Tallies

RUN_S = 120.0
DRAIN_S = 30.0
STAGES = tuple(stage for stage in Stage if stage is not Stage.QUEUE)
"""The steps that take the loop's time; a batch waits in the queue while the loop does something else."""


class WatchedTallies(Tallies):
    """The worker's own counters, which also start the stopwatch."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Stopwatch()
        self.records = 0
        self._before: dict[Stage, float] = {}

    def polled(self, records: int, now_s: float) -> None:
        """See `Tallies.polled`."""
        if records and not self.records:
            self.watch.first_record()
            self._before = self._seconds()
        self.records += records
        super().polled(records, now_s)

    def outcome(self) -> Outcome:
        """The last commit has returned."""
        statistics = self.snapshot(0.0)
        seconds = {stage.value: total - self._before[stage] for stage, total in self._seconds().items()}
        return self.watch.outcome(statistics.forecasts, statistics.transactions["committed"], seconds)

    def _seconds(self) -> dict[Stage, float]:
        stages = self.snapshot(0.0).stages
        return {stage: stages[stage].total for stage in STAGES}


def run(job: Job) -> Outcome:
    """Work until every event of the job was polled, then drain, as at SIGTERM."""
    light_model = compose.load_engine
    tallies = WatchedTallies()

    def load_engine(settings: Settings, features: Schema, *, live: bool = True) -> Engine:
        if job.engine == "noop":
            return NoopEngine(settings.batching.max_rows)
        return light_model(settings, features, live=live)

    separate_arenas()
    settings = job.settings()
    configure_logs(settings.log.level, settings.log.format)
    # Engine and counters are what the settings can't replace by something of the benchmark's own.
    with (
        patch.object(compose, "load_engine", load_engine),
        patch.object(compose_worker, "Tallies", lambda: tallies),
        assembled(settings) as worker,
    ):
        worker.start()
        freeze_objects()
        deadline = Deadline.after(RUN_S, time.monotonic)
        while tallies.records < job.events:
            worker.step()
            if deadline.expired:
                raise ContenderError(
                    f"{tallies.records} of {job.events} records in {RUN_S:g} s: {worker.statistics.not_ready}"
                )
        worker.drain(Deadline.after(DRAIN_S, time.monotonic))
        return tallies.outcome()


if __name__ == "__main__":
    report(run(job_from_arguments()))
