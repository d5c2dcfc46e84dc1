"""Replays for the benchmark: the command itself, in a process of its own, killed or run to its end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.dirty_log import read
from bench.job import ROOT, ContenderError
from demo.evaluation import DeadLetterRecord, ForecastRecord, Position
from demo.topics_reader import dead_letter_decoder, forecast_decoder
from demo.worker_process import toml

SPAN = ("--from", "earliest", "--to", "latest")
END_S = 300.0


class Replays:
    """Runs replays with one settings file."""

    def __init__(self, settings: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self._config = directory / "replay.toml"
        self._config.write_text(toml(settings), encoding="utf-8")
        self._directory = directory

    def start(self, name: str, *options: str) -> subprocess.Popen[str]:
        """One process, as a person would start it."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "worker", "replay", "--config", str(self._config)),
                *("--name", name, "--json", str(self._directory / f"{name}.json"), *SPAN, *options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def finish(self, name: str, *options: str) -> dict[str, Any]:
        """Run to the end: the summary. Raises `ContenderError`."""
        process = self.start(name, *options)
        _, log = process.communicate(timeout=END_S)
        if process.returncode != 0:
            raise ContenderError(f"replay {name} exited with {process.returncode}:\n{log[-3000:]}")
        content = json.loads((self._directory / f"{name}.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    def kill(self, name: str, times: int, rate_per_s: int, chance: random.Random) -> Sequence[float]:
        """Start it and kill it (signal 9), `times` over: after how many seconds each. It must not have ended by itself."""
        after_s = []
        for _ in range(times):
            wait_s = 2.5 + 2.5 * chance.random()
            process = self.start(name, "--rate", str(rate_per_s))
            time.sleep(wait_s)
            if process.poll() is not None:
                raise ContenderError(f"replay {name} ended before it was killed: {process.communicate()[1][-2000:]}")
            process.kill()
            process.communicate()
            after_s.append(round(wait_s, 2))
        return after_s


def outcomes(servers: str, forecasts: str, dead_letters: str) -> Counter[tuple[int, int]]:
    """(partition, offset) of an input record -> committed forecasts and dead letters of it."""
    found: Counter[tuple[int, int]] = Counter()
    sources = (_sources(servers, forecasts, forecast_decoder()), _sources(servers, dead_letters, dead_letter_decoder()))
    for each in sources:
        found.update(each)
    return found


def _sources(servers: str, topic: str, decode: Callable[[bytes], ForecastRecord | DeadLetterRecord]) -> list[Position]:
    """Where the event of each committed record came from."""
    found: list[Position] = []

    def take(value: bytes | None) -> bool:
        if value is not None:
            found.append(decode(value).source)
        return False

    read(servers, topic, take)
    return found
