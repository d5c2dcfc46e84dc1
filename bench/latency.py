"""Time from an event to its forecast, as a reader of committed forecasts sees it, at a steady modest rate.

An event's message timestamp is the moment it was handed to the producer, and its forecast carries the same timestamp: so
one clock measures both ends, to the millisecond. Worker, broker and this process share one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.job import MODEL, ROOT
from bench.machine import load_average, machine
from bench.spread import percentiles
from bench.tables import latency_lines
from bench.workload import events, write_schema
from demo.events import PARTITIONER, Event
from demo.kafka import EmbeddedKafka
from demo.worker_process import WorkerProcess

RESULT = ROOT / "bench" / "results" / "latency.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
PARTITIONS = 8
RATES_PER_S = (200, 2000)
COMMIT_INTERVALS_S = (0.1, 0.5)
WARM_UP_S = 5.0
TICK_S = 0.002
LATE_S = 30.0


class Player:
    """Sends events at a steady rate and reads the forecasts back, in one thread: each looks after the other's time."""

    def __init__(self, servers: str, features: str, forecasts: str) -> None:
        self._features = features
        self._producer = Producer(
            {"bootstrap.servers": servers, "partitioner": PARTITIONER, "linger.ms": 0, "enable.idempotence": True}
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "bench-latency",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        self._consumer.assign([TopicPartition(forecasts, partition, 0) for partition in range(PARTITIONS)])

    def play(self, played: Iterator[Event], rate_per_s: int, seconds: float) -> list[tuple[float, float]]:
        """(when sent, seconds until visible) of every event; when is counted from the start.

        Raises `TimeoutError` if forecasts are missing `LATE_S` after the last event.
        """
        began_s, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        total, sent = int(rate_per_s * seconds), 0
        seen: list[tuple[float, float]] = []
        while len(seen) < total:
            passed_s = time.monotonic() - began_s
            if passed_s > seconds + LATE_S:
                raise TimeoutError(f"{len(seen)} of {total} forecasts came within {LATE_S:g} s of the last event")
            while sent < min(total, int(passed_s * rate_per_s)):
                event = next(played)
                self._producer.produce(self._features, event.value, event.key, timestamp=time.time_ns() // 1_000_000)
                sent += 1
            self._producer.poll(0)
            messages = self._consumer.consume(1000, TICK_S)
            now_ms = time.time_ns() / 1e6
            stamps_ms = [message.timestamp()[1] for message in messages]
            seen += [((stamp_ms - began_ms) / 1000, (now_ms - stamp_ms) / 1000) for stamp_ms in stamps_ms]
        return seen

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def measure_case(
    kafka: EmbeddedKafka, rate_per_s: int, commit_interval_s: float, seconds: float
) -> Mapping[str, object]:
    """One rate at one commit interval, with topics and a worker of its own."""
    name = f"{rate_per_s}-{commit_interval_s:g}"
    topics = [f"{kind}-{name}" for kind in ("features", "forecasts", "dead-letters")]
    for topic in topics:
        kafka.create_topic(topic, partitions=PARTITIONS)
    with TemporaryDirectory() as directory:
        settings: dict[str, Mapping[str, object]] = {
            "kafka": {"bootstrap.servers": kafka.bootstrap_servers},
            "input": {"topic": topics[0], "group_id": name},
            "output": {"topic": topics[1], "dead_letter_topic": topics[2]},
            "wire": {"writer_schemas": [str(write_schema(Path(directory)))]},
            "engine": {"model": str(MODEL)},
            "batching": {"coalesce": False},
            "delivery": {"transactional_id": name, "commit_interval_s": commit_interval_s},
            "log": {"level": "warning"},
        }
        with WorkerProcess(settings, Path(directory)) as worker:
            player = Player(kafka.bootstrap_servers, topics[0], topics[1])
            load = load_average()
            wanted = int(rate_per_s * (WARM_UP_S + seconds))
            seen = player.play(events(wanted), rate_per_s, WARM_UP_S + seconds)
            player.close()
            worker.stop()
    latencies_s = [latency_s for sent_s, latency_s in seen if sent_s >= WARM_UP_S]
    return {
        "rate_per_s": rate_per_s,
        "commit_interval_s": commit_interval_s,
        "events": len(latencies_s),
        "load": load,
        "latency_s": percentiles(latencies_s),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`."""
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="per case, after warm-up (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka:
        cases = [
            measure_case(kafka, rate_per_s, commit_interval_s, given.seconds)
            for rate_per_s in RATES_PER_S
            for commit_interval_s in COMMIT_INTERVALS_S
        ]
    result = {"machine": machine(HEAP, JVM_OPTIONS), "warm_up_s": WARM_UP_S, "cases": cases}
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*latency_lines(result), "", f"written to {given.output}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
