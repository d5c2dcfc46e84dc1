"""What one contender has to do, and what it reports: the contract between a benchmark and the processes it starts.

Every contender runs in a process of its own (`python -m bench.<module> <job as JSON>`), so that none warms another, and
prints its outcome as one line of JSON.

Timing: from the return of the first poll that brought records to the return of the last commit. Starting Python, joining
the group and `init_transactions` lie before it, for every contender.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from worker.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "bakery-smoother"
"""A model that costs about a microsecond a row, so that what is measured is the data's way. The trained ones cost hundreds."""
BATCH_ROWS = 4096
"""Rows per batch, for every contender that makes batches; records per poll for the others."""
MARK = "outcome "
TIMEOUT_S = 300.0


class ContenderError(RuntimeError):
    """A contender's process failed; the message holds the end of what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Read `events` records of `input_topic` as `group`, write as many to `output_topic`, exactly once.

    `writer_schema`: file with the schema that the records were written with. `model`: the folder that any engine but "noop" serves.
    """

    bootstrap_servers: str
    input_topic: str
    output_topic: str
    dead_letter_topic: str
    group: str
    writer_schema: str
    events: int
    engine: Literal["noop", "light"]
    commit_interval_s: float
    model: str = str(MODEL)

    def settings(self, *more: str) -> Settings:
        """The worker's settings for this job. All contenders make their clients from them: the tuning is the same.

        Coalescing is off, so that every event is computed, by everyone.
        """
        return load_settings(
            None,
            [
                f"kafka.bootstrap.servers={self.bootstrap_servers}",
                f"input.topic={self.input_topic}",
                f"input.group_id={self.group}",
                f"output.topic={self.output_topic}",
                f"output.dead_letter_topic={self.dead_letter_topic}",
                f"wire.writer_schemas={self.writer_schema}",
                f"engine.model={self.model}",
                f"batching.max_rows={BATCH_ROWS}",
                "batching.coalesce=false",
                f"delivery.transactional_id={self.group}",
                f"delivery.commit_interval_s={self.commit_interval_s}",
                "server.port=off",
                "guard.without_backup=publish",  # the light model knows the bakeries, not all that is played
                "log.level=warning",
                "log.format=text",
                *more,
            ],
            {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a contender did. `cpu_s`: user and system time of all its threads between the same two moments as `seconds`.

    `stage_s`: seconds in each step of its loop, by its own clock. `transactions`: commits.
    """

    events: int
    seconds: float
    cpu_s: float
    peak_rss_bytes: int
    transactions: int
    stage_s: Mapping[str, float]

    @property
    def rows_per_s(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    @property
    def cpu_us_per_row(self) -> float:
        """Microseconds of CPU time per event, of all threads."""
        return self.cpu_s / self.events * 1e6


class Stopwatch:
    """Time and CPU time since the first record, and seconds per stage."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self.stage_s: dict[str, float] = {}
        self._mark_s = time.perf_counter()

    def first_record(self) -> None:
        """The first poll that brought records has returned. Calls after the first one do nothing."""
        if self._began is None:
            self._began = (time.perf_counter(), time.process_time())
            self.stage_s.clear()  # waiting for the group is no stage
            self._mark_s = self._began[0]

    def stage(self, name: str) -> None:
        """The time since the last call was spent in stage `name`."""
        now_s = time.perf_counter()
        self.stage_s[name] = self.stage_s.get(name, 0.0) + now_s - self._mark_s
        self._mark_s = now_s

    def outcome(self, events: int, transactions: int, stage_s: Mapping[str, float] | None = None) -> Outcome:
        """The last commit has returned."""
        ended_s, ended_cpu_s = time.perf_counter(), time.process_time()
        if self._began is None:
            raise ContenderError("the contender ended without having seen a record")
        began_s, began_cpu_s = self._began
        return Outcome(
            events=events,
            seconds=ended_s - began_s,
            cpu_s=ended_cpu_s - began_cpu_s,
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            transactions=transactions,
            stage_s=self.stage_s if stage_s is None else stage_s,
        )


def job_from_arguments() -> Job:
    """The job that this process was started with."""
    return Job(**json.loads(sys.argv[1]))


def report(outcome: Outcome) -> None:
    """Tell the benchmark that started this process."""
    print(MARK + json.dumps(asdict(outcome)), flush=True)


def run_contender(module: str, job: Job) -> Outcome:
    """Run `python -m <module>` on `job` in a process of its own. Raises `ContenderError` if it fails."""
    command = [sys.executable, "-m", module, json.dumps(asdict(job))]
    # This checkout first; the rest stays, for machines whose packages are found by it alone.
    paths = (str(ROOT), os.environ.get("PYTHONPATH"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not lines:
        raise ContenderError(f"{module} exited with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return Outcome(**json.loads(lines[-1].removeprefix(MARK)))
