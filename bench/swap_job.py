"""What both benchmarks of swaps need: topics, a store of versions, a worker on them, events for it, and a look at how it is."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.job import ContenderError
from bench.workload import events, write_schema
from demo.events import Event, Schema
from demo.kafka import EmbeddedKafka
from demo.worker_process import toml
from tests.helpers.store import TestStore
from tests.helpers.workers import WorkerHandle

PARTITIONS = 8
PLAYED = 21_000
"""Different events; they are sent again and again. Ten days of all keys."""
FETCH_BYTES = 1 << 17
"""Of one partition at a time, and as much as a batch of the producer's has: so that every partition has events within a second."""
SETTLE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Topics of one worker on a broker, its folder, and the store that it watches.

    schema: of the events, if they aren't `bench.workload`'s. gpu: a simulated one, or the one that is here.
    """

    servers: str
    name: str
    directory: Path
    store: TestStore
    schema: Schema | None = None
    gpu: Literal["simulated", "real"] = "simulated"

    @classmethod
    def make(cls, kafka: EmbeddedKafka, name: str, directory: Path, store: TestStore) -> Place:
        """Create topics and folder."""
        place = cls(servers=kafka.bootstrap_servers, name=name, directory=directory / name, store=store)
        place.directory.mkdir()
        for topic in (place.features, place.forecasts, place.letters):
            kafka.create_topic(topic, PARTITIONS)
        return place

    @property
    def features(self) -> str:
        """The input topic."""
        return f"features-{self.name}"

    @property
    def forecasts(self) -> str:
        """The output topic."""
        return f"forecasts-{self.name}"

    @property
    def letters(self) -> str:
        """The dead letters' topic."""
        return f"letters-{self.name}"

    def worker(self, steps: Path | None = None, **sections: Mapping[str, object]) -> WorkerHandle:
        """A worker on this place; `sections` are laid over the settings. steps: see `swap_worker`."""
        tables: dict[str, dict[str, object]] = {
            "kafka": {"bootstrap.servers": self.servers},
            "kafka.consumer": {"max.partition.fetch.bytes": FETCH_BYTES},
            "input": {"topic": self.features, "group_id": self.name},
            "output": {"topic": self.forecasts, "dead_letter_topic": self.letters},
            "wire": {"writer_schemas": [str(write_schema(self.directory, self.schema))]},
            "engine": {"model": str(self.store.folder), "threads": 1},
            "models": {"interval_s": 0.5, "headroom_bytes": 0},
            "batching": {"coalesce": False},
            "delivery": {"transactional_id": self.name},
            "log": {"format": "text"},
            "server": {"host": "127.0.0.1", "port": 0},
        }
        for section, values in sections.items():
            tables.setdefault(section, {}).update(values)
        config = self.directory / "worker.toml"
        config.write_text(toml(tables), encoding="utf-8")
        command = [sys.executable, "-m", "bench.swap_worker", self.gpu, str(steps or "-")]
        return WorkerHandle([*command, "run", "--config", str(config)], self.directory / "worker.log")

    def committed(self) -> dict[int, int]:
        """The group's positions; 0 where it has none."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.name})
        places = [TopicPartition(self.features, partition) for partition in range(PARTITIONS)]
        found = consumer.committed(places, timeout=30.0)
        consumer.close()
        return {place.partition: max(0, int(place.offset or 0)) for place in found}


class Feed:
    """Sends events to a topic, the partitions in turn. Each event's own key and value, without a time of its own.

    played: what is sent again and again.
    """

    def __init__(self, servers: str, topic: str, played: Sequence[Event] | None = None) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": FETCH_BYTES,
                "queue.buffering.max.messages": 200_000,
            }
        )
        self._events: Iterator[Event] = itertools.cycle(list(events(PLAYED)) if played is None else played)
        self.sent = 0

    def send(self, count: int) -> None:
        """Hand over `count` more events; waits only while the producer's queue is full."""
        for event in itertools.islice(self._events, count):
            while True:
                try:
                    self._producer.produce(self._topic, event.value, event.key, partition=self.sent % PARTITIONS)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self.sent += 1
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has all of them. Raises `ContenderError`."""
        if self._producer.flush(120.0):
            raise ContenderError(f"{self._topic}: not every event was delivered within 120 s")


def ready(worker: WorkerHandle) -> Mapping[str, Any]:
    """What `/ready` says of the versions. Raises `ContenderError` if the worker has ended."""
    if worker.process.poll() is not None:
        raise ContenderError(f"the worker ended with {worker.process.returncode}:\n{worker.log[-3000:]}")
    found = json.loads(worker.get("/ready")[1] or "{}").get("models", {})
    return found if isinstance(found, dict) else {}


def wait_for(what: str, is_there: Callable[[], bool], *, every_s: float = 0.02, within_s: float = SETTLE_S) -> None:
    """Until `is_there`. Raises `ContenderError` after `within_s`."""
    until_s = time.monotonic() + within_s
    while not is_there():
        if time.monotonic() > until_s:
            raise ContenderError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)
