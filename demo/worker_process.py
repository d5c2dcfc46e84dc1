"""The worker as the demo runs it: its settings file, the process, its metrics, its end. Knows no worker code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from prometheus_client import parser

from demo.jvm import free_ports

HOST: Final = "127.0.0.1"
_TAIL_CHARS: Final = 3000

Table = Mapping[str, object]


class WorkerFailedError(RuntimeError):
    """The worker's process ended, or didn't get ready. The message holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramSamples:
    """One Prometheus histogram: counts per bucket (not cumulative) up to and with each bound; the last bound is inf."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)


def toml(tables: Mapping[str, Table]) -> str:
    """A TOML document of flat tables. JSON's strings, numbers, booleans and lists of strings are TOML too."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


class WorkerProcess:
    """A worker in a process of its own, inside a `with` block. Leaving the block ends it, by force if it must be.

    settings: the tables of `worker.toml`; `server` is added. directory: where settings and log are written.
    Entering raises `WorkerFailedError` if it isn't ready within `ready_timeout_s`.
    """

    def __init__(self, settings: Mapping[str, Table], directory: Path, *, ready_timeout_s: float = 60.0) -> None:
        (self.port,) = free_ports(1)
        self._config = directory / "worker.toml"
        self._log = directory / "worker.log"
        self._settings = {**settings, "server": {"host": HOST, "port": self.port}}
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def metrics_url(self) -> str:
        """Where the metrics are served."""
        return f"http://{HOST}:{self.port}/metrics"

    def __enter__(self) -> Self:
        self._config.write_text(toml(self._settings), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = self._start(log)
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def check(self) -> None:
        """Raise `WorkerFailedError` if the process has ended."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise WorkerFailedError(f"the worker ended with exit code {code}; the end of its log:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it wrote to stdout and stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:]

    def metrics(self) -> str:
        """What /metrics says now. Raises `OSError` if it doesn't answer."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:  # noqa: S310 - a fixed http address
            return str(answer.read().decode())

    def stop(self, *, grace_s: float = 30.0) -> int:
        """SIGTERM and wait: its exit code. Raises `WorkerFailedError` if it takes longer than `grace_s`."""
        assert self._process is not None, "stop() outside the with block"  # noqa: S101 - a caller's mistake
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired as error:
            raise WorkerFailedError(
                f"the worker was still there {grace_s:g} s after SIGTERM:\n{self.log_tail()}"
            ) from error

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "worker", "run", "--config", str(self._config)]
        # The demo may be run from a checkout that isn't installed: the worker must be found the same way the demo was.
        paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + self._ready_timeout_s
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline_s:
                raise WorkerFailedError(f"the worker isn't ready after {self._ready_timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/ready", timeout=1) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def histograms(text: str, name: str, label: str | None = None) -> dict[str, HistogramSamples]:
    """The histogram `name` in Prometheus text, by the value of `label`; under "" without a label. Empty if absent."""
    cumulative: dict[str, list[tuple[float, int]]] = {}
    totals: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples if family.name == name else ():
            of = sample.labels.get(label, "") if label else ""
            if sample.name == f"{name}_bucket":
                cumulative.setdefault(of, []).append((float(sample.labels["le"]), int(sample.value)))
            elif sample.name == f"{name}_sum":
                totals[of] = sample.value
    return {of: _differences(buckets, totals.get(of, 0.0)) for of, buckets in cumulative.items()}


def _differences(buckets: list[tuple[float, int]], total: float) -> HistogramSamples:
    ordered = sorted(buckets)
    counts = [count for _, count in ordered]
    steps = tuple(now - before for now, before in zip(counts, [0, *counts[:-1]], strict=True))
    return HistogramSamples(bounds=tuple(bound for bound, _ in ordered), counts=steps, total=total)
