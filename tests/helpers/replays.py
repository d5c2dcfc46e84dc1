"""Replays as a person runs them: a process each, and what they wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.topics import Stored, read_all
from tests.helpers.workers import ROOT, Job, decoded


@dataclass(frozen=True)
class Done:
    """How a replay ended."""

    code: int
    output: str
    log: str
    summary: dict[str, Any]


class Replay:
    """`forecast-worker replay` on a job's topics, with the same options each time."""

    def __init__(self, job: Job, name: str, *options: str, **sections: dict[str, object]) -> None:
        self.job = job
        self.name = name
        self._config = job.config(f"replay-{name}", **sections)
        self.summary = self._config.with_name("summary.json")
        self._options = options

    @property
    def forecasts(self) -> str:
        return f"{self.job.forecasts}.replay.{self.name}"

    @property
    def dead_letters(self) -> str:
        return f"{self.job.dead_letters}.replay.{self.name}"

    @property
    def group(self) -> str:
        return f"group-{self.job.source}.replay.{self.name}"

    def command(self, *more: str) -> list[str]:
        fixed = ["--config", str(self._config), "--name", self.name, "--json", str(self.summary)]
        return [sys.executable, "-m", "worker", "replay", *fixed, *self._options, *more]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=self._config.parent,
        )

    def run(self, *more: str, timeout_s: float = 120.0) -> Done:
        process = self.start(*more)
        try:
            output, log = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        summary = json.loads(self.summary.read_text(encoding="utf-8") or "{}") if self.summary.exists() else {}
        return Done(process.returncode, output, log, summary)

    def finish(self, *more: str) -> dict[str, Any]:
        """Run to the end: the summary."""
        done = self.run(*more)
        assert done.code == 0, done.log
        assert done.summary["finished"], done.summary
        return done.summary

    def published(self) -> list[tuple[Stored, dict[str, Any]]]:
        return [(m, decoded("sku_forecast", m.value)) for m in read_all(self.job.bootstrap, self.forecasts) if m.value]

    def outcomes(self) -> Counter[tuple[int, int]]:
        """(partition, offset) of an input record -> forecasts and dead letters that this replay committed for it."""
        letters = [decoded("dead_letter", m.value) for m in read_all(self.job.bootstrap, self.dead_letters) if m.value]
        return Counter(
            [(m["source_partition"], m["source_offset"]) for _, m in self.published()]
            + [(m["partition"], m["offset"]) for m in letters]
        )


def lines(path: Path, keys: list[str]) -> Path:
    """A file of keys."""
    path.write_text("".join(f"{key}\n" for key in keys), encoding="utf-8")
    return path
