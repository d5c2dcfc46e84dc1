"""Memory of the worker's process over a million events after its warm-up, with the light model, while it works through a backlog.

The backlog is longer than what is measured, so that the worker is as busy at the end as at the beginning. Flat means:
after the warm-up no sample is further than 5 % from the median.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.parser import text_string_to_metric_families

from bench.job import MODEL, ROOT
from bench.machine import machine
from bench.spread import slope, spread
from bench.tables import memory_lines
from bench.workload import events, fill, write_schema
from demo.kafka import EmbeddedKafka
from demo.worker_process import WorkerFailedError, WorkerProcess

RESULT = ROOT / "bench" / "results" / "memory.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
PARTITIONS = 8
TOLERANCE = 0.05
EVERY_S = 0.5
INPUT, OUTPUT, DEAD_LETTERS = "bench-features", "bench-forecasts", "bench-dead-letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`events`: forecasts made so far. `rss_bytes`: resident memory of the process then."""

    at_s: float
    events: int
    rss_bytes: int


class MeasuredWorker(WorkerProcess):
    """A worker whose memory can be asked for."""

    def rss_bytes(self) -> int:
        """Resident memory, from the kernel's own sum over all mappings."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Rss:"))

    def forecasts(self) -> int:
        """Rows forecast so far, as the worker says."""
        for family in text_string_to_metric_families(self.metrics()):
            for sample in family.samples:
                if sample.name == "forecast_worker_forecasts_total":
                    return int(sample.value)
        raise WorkerFailedError("the worker's metrics lack forecast_worker_forecasts_total")


def samples(worker: MeasuredWorker, until_events: int, stall_s: float = 60.0) -> Iterator[Sample]:
    """One sample every `EVERY_S` until `until_events` forecasts are made. Raises `WorkerFailedError` if they stall."""
    began_s = moved_s = time.monotonic()
    before = -1
    while before < until_events:
        worker.check()
        now_s, done = time.monotonic(), worker.forecasts()
        moved_s = now_s if done > before else moved_s
        if now_s - moved_s > stall_s:
            raise WorkerFailedError(f"no forecast in {stall_s:g} s, {done} so far:\n{worker.log_tail()}")
        yield Sample(at_s=now_s - began_s, events=done, rss_bytes=worker.rss_bytes())
        before = done
        time.sleep(EVERY_S)


def verdict(found: Sequence[Sample], warm_up_events: int) -> Mapping[str, object]:
    """Whether memory stayed flat after `warm_up_events`. Raises `ValueError` with fewer than ten samples to judge by.

    `trend`: what the fitted line gains over all events that were judged, as a share of the median.
    """
    judged = [sample for sample in found if sample.events >= warm_up_events]
    if len(judged) < 10:
        raise ValueError(f"got {len(judged)} samples after the warm-up, expected at least 10: measure more events")
    rss = [float(sample.rss_bytes) for sample in judged]
    numbers = spread(rss)
    median = numbers["median"]
    done = [float(sample.events) for sample in judged]
    deviation = max(abs(value - median) for value in rss) / median
    return {
        "samples_after_warm_up": len(judged),
        "rss_bytes": numbers,
        "deviation": deviation,
        "trend": slope(done, rss) * (done[-1] - done[0]) / median,
        "flat": deviation <= TOLERANCE,
    }


def measure(count: int, warm_up: int) -> Mapping[str, object]:
    """The result as it is written to `RESULT`."""
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as directory:
        for topic in (INPUT, OUTPUT, DEAD_LETTERS):
            kafka.create_topic(topic, partitions=PARTITIONS)
        fill(kafka.bootstrap_servers, INPUT, events((count + warm_up) * 5 // 4))
        settings: dict[str, Mapping[str, object]] = {
            "kafka": {"bootstrap.servers": kafka.bootstrap_servers},
            "input": {"topic": INPUT},
            "output": {"topic": OUTPUT, "dead_letter_topic": DEAD_LETTERS},
            "wire": {"writer_schemas": [str(write_schema(Path(directory)))]},
            "engine": {"model": str(MODEL)},
            "batching": {"coalesce": False},
            "delivery": {"transactional_id": "bench-memory"},
            "log": {"level": "warning"},
        }
        with MeasuredWorker(settings, Path(directory)) as worker:
            found = list(samples(worker, count + warm_up))
            worker.stop()
    return {
        "machine": machine(HEAP, JVM_OPTIONS),
        "events": found[-1].events - warm_up,
        "warm_up_events": warm_up,
        "tolerance": TOLERANCE,
        **verdict(found, warm_up),
        "samples": [asdict(sample) for sample in found],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`; 1 if memory wasn't flat."""
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="events to judge by (default %(default)s)")
    parser.add_argument("--warm-up", type=int, default=2_000_000, help="events before them (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    result = measure(given.events, given.warm_up)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*memory_lines(result), "", f"written to {given.output}"]))
    return 0 if result["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
