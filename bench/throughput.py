"""Rows per second, exactly once: the worker, the same job as a plain loop, and a bare copy, in the same run.

The input topic is filled once. Then every contender has its turn, round after round, each time in a new process, with a
new consumer group and a new output topic. A round's ratios compare runs that were minutes apart at most, on the same
broker. The first round warms the broker (its JVM compiles) and isn't counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from confluent_kafka.admin import AdminClient

from bench.job import ROOT, Job, Outcome, run_contender
from bench.machine import load_average, machine
from bench.spread import spread
from bench.tables import throughput_lines
from bench.verify import Keys, check_offsets, check_output, keys_of
from bench.workload import events, fill, write_schema
from demo.kafka import EmbeddedKafka

RESULT = ROOT / "bench" / "results" / "throughput.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
"""Unlike the demo's broker, this one may compile with its best compiler: a slow broker would flatter slow clients."""
PARTITIONS = 8
INPUT, DEAD_LETTERS = "bench-features", "bench-dead-letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program and the engine it runs with."""

    name: str
    module: str
    engine: Literal["noop", "light"]


CONTENDERS = (
    Contender(name="worker, no-op engine", module="bench.worker_run", engine="noop"),
    Contender(name="plain loop, no-op engine", module="bench.peer_plain", engine="noop"),
    Contender(name="bare copy", module="bench.peer_copy", engine="noop"),
    Contender(name="worker, light model", module="bench.worker_run", engine="light"),
    Contender(name="plain loop, light model", module="bench.peer_plain", engine="light"),
)
RATIOS: Mapping[str, tuple[str, str]] = {
    "worker / plain loop, no-op engine": ("worker, no-op engine", "plain loop, no-op engine"),
    "worker / plain loop, light model": ("worker, light model", "plain loop, light model"),
    "worker, no-op engine / bare copy": ("worker, no-op engine", "bare copy"),
    "worker, light model / bare copy": ("worker, light model", "bare copy"),
}
AIMS: Mapping[str, float] = {"worker / plain loop, no-op engine": 5.0, "worker, no-op engine / bare copy": 0.4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One turn of one contender. `round` 0 is the warm-up. `load`: load average just before."""

    round: int
    contender: str
    load: float
    outcome: Outcome


class Track:
    """A broker with the input on it, for one contender after the other."""

    def __init__(self, kafka: EmbeddedKafka, schema: Path, count: int, commit_interval_s: float) -> None:
        self._schema = schema
        self._kafka = kafka
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        self._count = count
        self._commit_interval_s = commit_interval_s
        for topic in (INPUT, DEAD_LETTERS):
            kafka.create_topic(topic, partitions=PARTITIONS)
        self.input_bytes = fill(kafka.bootstrap_servers, INPUT, events(count))
        self._keys: Keys = keys_of(kafka.bootstrap_servers, INPUT)

    def turn(self, number: int, contender: Contender) -> Run:
        """Run `contender` and check what it left. Raises `InvalidRunError`, `ContenderError`."""
        name = f"{contender.module.removeprefix('bench.')}-{contender.engine}-{number}"
        output, servers = f"out-{name}", self._kafka.bootstrap_servers
        self._kafka.create_topic(output, partitions=PARTITIONS)
        job = Job(
            bootstrap_servers=servers,
            input_topic=INPUT,
            output_topic=output,
            dead_letter_topic=DEAD_LETTERS,
            group=name,
            writer_schema=str(self._schema),
            events=self._count,
            engine=contender.engine,
            commit_interval_s=self._commit_interval_s,
        )
        load = load_average()
        outcome = run_contender(contender.module, job)
        check_output(servers, output, self._keys)
        check_offsets(servers, name, INPUT, self._keys)
        self._admin.delete_topics([output])[output].result(30.0)
        return Run(round=number, contender=contender.name, load=load, outcome=outcome)


def measure(count: int, rounds: int, commit_interval_s: float) -> Mapping[str, object]:
    """All rounds; the result as it is written to `RESULT`."""
    began_s, runs = time.monotonic(), []
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as directory:
        track = Track(kafka, write_schema(Path(directory)), count, commit_interval_s)
        for number in range(rounds + 1):
            for contender in CONTENDERS:
                run = track.turn(number, contender)
                runs.append(run)
                print(f"  round {number}  {run.contender:<26}{run.outcome.rows_per_s:>10,.0f} rows/s", flush=True)
    counted = [run for run in runs if run.round > 0]
    return {
        "machine": machine(HEAP, JVM_OPTIONS),
        "events": count,
        "event_bytes": track.input_bytes / count,
        "partitions": PARTITIONS,
        "rounds": rounds,
        "commit_interval_s": commit_interval_s,
        "took_s": time.monotonic() - began_s,
        "rows_per_s": _by_contender(counted, lambda outcome: outcome.rows_per_s),
        "cpu_us_per_row": _by_contender(counted, lambda outcome: outcome.cpu_us_per_row),
        "ratios": {name: spread(_ratios(counted, *pair)) for name, pair in RATIOS.items()},
        "aims": AIMS,
        "runs": [asdict(run) for run in runs],
    }


def _by_contender(runs: Sequence[Run], value: Callable[[Outcome], float]) -> Mapping[str, Mapping[str, float]]:
    names = dict.fromkeys(run.contender for run in runs)
    return {name: spread([value(run.outcome) for run in runs if run.contender == name]) for name in names}


def _ratios(runs: Sequence[Run], above: str, below: str) -> list[float]:
    """One ratio of rows per second for each round."""
    rates = {(run.round, run.contender): run.outcome.rows_per_s for run in runs}
    return [rates[number, above] / rates[number, below] for number in sorted({run.round for run in runs})]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`."""
    parser = argparse.ArgumentParser(prog="python -m bench throughput", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--events", type=int, default=200_000, help="events on the input topic (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default %(default)s)")
    parser.add_argument("--commit-interval-s", type=float, default=0.5, help="seconds (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    result = measure(given.events, given.rounds, given.commit_interval_s)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(["", *throughput_lines(result), "", f"written to {given.output}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
