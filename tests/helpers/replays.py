"""Replays as a person runs them: a process each, and what they wrote."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.child import Child
from tests.helpers.topics import Stored, read_all
from tests.helpers.workers import Job, decoded


@dataclass(frozen=True)
class Done:
    """How a replay ended."""

    code: int
    output: str
    log: str
    summary: dict[str, Any]


class Replay:
    """`forecast-worker replay` on a job's topics, with the same options each time. It isn't nice: here is nobody to be nice to."""

    def __init__(self, job: Job, name: str, *options: str, **sections: dict[str, object]) -> None:
        self.job = job
        self.name = name
        niceness: dict[str, object] = {"niceness": 0}
        self._config = job.config(f"replay-{name}", **{**sections, "replay": niceness | sections.get("replay", {})})
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

    def arguments(self, *more: str) -> list[str]:
        """Of the command line."""
        fixed = ["--config", str(self._config), "--name", self.name, "--json", str(self.summary)]
        return ["replay", *fixed, *self._options, *more]

    def process(self, *more: str) -> Child:
        """A process of it, which a `with` block starts and ends."""
        return Child([sys.executable, "-m", "worker", *self.arguments(*more)], folder=self._config.parent)

    def run(self, *more: str, timeout_s: float = 180.0) -> Done:
        with self.process(*more) as process:
            code = process.wait(timeout_s)
            summary = json.loads(self.summary.read_text(encoding="utf-8") or "{}") if self.summary.exists() else {}
            return Done(code, process.output, process.log, summary)

    def finish(self, *more: str) -> dict[str, Any]:
        """Run to the end: the summary."""
        done = self.run(*more)
        assert done.code == 0, done.log
        assert done.summary["finished"], done.summary
        return done.summary

    def reached(self) -> int:
        """How many offsets it has committed, over all partitions that begin at 0."""
        return sum(max(0, offset) for offset in self.job.committed(self.group).values())

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
