"""Real workers in processes of their own, on the embedded broker, and the count of what became of each input record."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import fastavro
from confluent_kafka import Consumer

from demo.worker_process import toml
from schemas.load import load_schema
from tests.helpers.asking import committed_offsets
from tests.helpers.topics import Stored, produce, read_all
from tests.helpers.waiting import SLOW_S, wait_until
from worker.framing import SingleObjectFraming

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "bakery-smoother"
SCHEMA = load_schema(None, "sku_features")
FRAMING = SingleObjectFraming([SCHEMA])
PREFIX = FRAMING.prefix_for(SCHEMA)  # once, as a fingerprint costs more than all the rest of an event
LISTENING = re.compile(r"\blistening\b.*\bport\W+(\d+)\b")  # as text or JSON


@cache
def _parsed(name: str) -> Any:
    return fastavro.parse_schema(dict(load_schema(None, name)))


def avro(name: str, content: Mapping[str, object]) -> bytes:
    """`content` as Avro, without a prefix."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _parsed(name), dict(content))
    return out.getvalue()


def features(number: int, as_of: int = 19_900) -> dict[str, object]:
    """What event `number` says: each has its own SKU."""
    sales = [float((number * 7 + day * 3) % 50 + 1) for day in range(30)]
    return {"sku_id": f"sku{number}", "store_id": "store", "as_of": as_of, "sales": sales}


def event(number: int, as_of: int = 19_900) -> bytes:
    """Event `number` in single-object encoding, covariates at their defaults."""
    return PREFIX + avro("sku_features", features(number, as_of))


def key(number: int) -> bytes:
    return f"sku{number}|store".encode()


@dataclass
class Job:
    """Input and output topics on a broker, and the settings that its workers share."""

    bootstrap: str
    source: str
    forecasts: str
    dead_letters: str
    directory: Path
    partitions: int = 4
    extra: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    _names: Iterator[int] = field(default_factory=itertools.count)

    def send(self, numbers: Sequence[int]) -> None:
        """Produce these events, spread over the partitions."""
        self.send_raw([(key(n), event(n), n % self.partitions) for n in numbers])

    def send_raw(self, messages: Sequence[tuple[bytes | None, bytes | None, int]]) -> None:
        """Produce key, value, partition. The timestamp is 1,700,000,000,000 + the message's place in `messages`."""
        base = 1_700_000_000_000
        produce(self.bootstrap, self.source, [(k, v, base + i, p) for i, (k, v, p) in enumerate(messages)])

    def settings(self, name: str, **sections: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """The tables of a worker's settings file; those in `extra` and `sections` are laid over them."""
        tables: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap.servers": self.bootstrap},
            "kafka.consumer": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
            "input": {"topic": self.source, "group_id": f"group-{self.source}"},
            "output": {"topic": self.forecasts, "dead_letter_topic": self.dead_letters},
            "engine": {"model": str(MODEL), "threads": 1},
            "batching": {"max_rows": 256, "coalesce": False},
            "delivery": {"transactional_id": f"{self.source}-{name}", "commit_interval_s": 0.1},
            "log": {"format": "text"},
        }
        for table, values in itertools.chain(self.extra.items(), sections.items()):
            tables.setdefault(table, {}).update(values)
        if tables["input"].get("group_protocol") == "consumer":
            del tables["kafka.consumer"]
        return {table: values for table, values in tables.items() if values}

    def worker(self, name: str, **sections: Mapping[str, object]) -> WorkerHandle:
        """A worker as `forecast-worker run` starts it. Enter it to start."""
        return self._handle(name, sections, lambda config: ["-m", "worker", "run", "--config", str(config)])

    def doomed(self, name: str, point: str, hit: int, **sections: Mapping[str, object]) -> WorkerHandle:
        """A worker that SIGKILLs itself at the `hit`-th pass of `point`."""
        return self._handle(
            name, sections, lambda config: ["-m", "tests.helpers.killable", str(config), point, str(hit)]
        )

    def _handle(self, name: str, sections: Mapping[str, Mapping[str, object]], command: Any) -> WorkerHandle:
        config = self.config(name, **{**sections, "server": {"host": "127.0.0.1", "port": 0}})
        return WorkerHandle([sys.executable, *command(config)], config.with_name("log"))

    def config(self, name: str, **sections: Mapping[str, object]) -> Path:
        """A settings file in a folder of its own."""
        place = self.directory / f"{next(self._names)}-{name}"
        place.mkdir(parents=True)
        config = place / "worker.toml"
        config.write_text(toml(self.settings(name, **sections)), encoding="utf-8")
        return config

    def inputs(self) -> list[Stored]:
        return read_all(self.bootstrap, self.source)

    def committed(self, group: str | None = None) -> dict[int, int]:
        """The committed offsets of the workers' group, or of another one; -1001 where there is none."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group or f"group-{self.source}"})
        try:
            return dict(committed_offsets(consumer, self.source, range(self.partitions)))
        finally:
            consumer.close()

    def wait_done(self, ends: Mapping[int, int], timeout_s: float = SLOW_S) -> None:
        """Wait until the group has committed up to `ends` (partition -> offset)."""
        wait_until(lambda: self.is_done(ends), f"{self.source} committed up to {ends}", timeout_s)

    def is_done(self, ends: Mapping[int, int]) -> bool:
        """Whether the group has committed up to `ends`."""
        committed = self.committed()
        return all(committed[partition] >= end for partition, end in ends.items())

    def ends(self) -> dict[int, int]:
        ends: dict[int, int] = {}
        for record in self.inputs():
            ends[record.partition] = record.offset + 1
        return ends

    def published(self) -> list[tuple[Stored, dict[str, Any]]]:
        """Forecasts that aren't withdrawals, decoded by fastavro."""
        return [(m, decoded("sku_forecast", m.value)) for m in read_all(self.bootstrap, self.forecasts) if m.value]

    def letters(self) -> list[tuple[Stored, dict[str, Any]]]:
        return [(m, decoded("dead_letter", m.value)) for m in read_all(self.bootstrap, self.dead_letters) if m.value]

    def outcomes(self) -> Counter[tuple[int, int]]:
        """(partition, offset) of an input record -> forecasts and dead letters committed for it."""
        return Counter(
            [(m["source_partition"], m["source_offset"]) for _, m in self.published()]
            + [(m["partition"], m["offset"]) for _, m in self.letters()]
        )

    def assert_exactly_once(self) -> None:
        """Every input record with a value has exactly one outcome."""
        expected = {(r.partition, r.offset) for r in self.inputs() if r.value is not None}
        outcomes = self.outcomes()
        lost = expected - outcomes.keys()
        doubled = {place: count for place, count in outcomes.items() if count > 1}
        assert not lost, f"{len(lost)} of {len(expected)} lost, e.g. {sorted(lost)[:5]}"
        assert not doubled, f"{len(doubled)} of {len(expected)} doubled, e.g. {sorted(doubled.items())[:5]}"
        assert outcomes.keys() == expected


def decoded(name: str, value: bytes | None) -> dict[str, Any]:
    assert value is not None
    content = fastavro.schemaless_reader(io.BytesIO(value[FRAMING.prefix_bytes :]), _parsed(name), None)
    assert isinstance(content, dict)
    return content


class WorkerHandle:
    """A worker's process inside a `with` block, which starts it; leaving the block kills it if it is still there."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self._log.parent
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._listens_at()}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error as answer:
                return answer.code, answer.read().decode()
        except OSError:
            return 0, ""

    def metric(self, line: str) -> float:
        """The value of the sample that starts with `line`, 0 if there is none."""
        for sample in self.get("/metrics")[1].splitlines():
            if sample.startswith(line):
                return float(sample.rpartition(" ")[2])
        return 0.0

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            return self.get("/ready")[0] == 200

        self._wait(ready, "worker ready")

    def wait_end(self, timeout_s: float = SLOW_S) -> int:
        """Its exit code; negative: the signal that killed it."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker is still there after {timeout_s:g} s; its log:\n{self.log}") from None
        code = self.process.returncode
        assert isinstance(code, int)
        return code

    def stop(self) -> int:
        """SIGTERM, and its exit code. Waits until it listens: before that, Python itself answers signals."""
        self._wait(lambda: self.get("/live")[0] != 0 or self.process.poll() is not None, "worker listens")
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log}") from None

    def _listens_at(self) -> int:
        """The port that it was given by the system, from its log. Raises `OSError` while it says none."""
        if self._port is None:
            said = LISTENING.search(self.log)
            if said is None:
                raise ConnectionRefusedError
            self._port = int(said[1])
        return self._port
