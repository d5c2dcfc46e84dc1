"""The events that are measured with: real demand and covariates of the bakery chain, under as many keys as wanted.

The data have 105 series; a benchmark wants more keys than that, and more events than 105 series have days. So the chain
is repeated under other store names, each repetition starting at another day.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from confluent_kafka import Message, Producer

from demo import bakery
from demo.events import PARTITIONER, Event, EventWriter, Schema
from demo.series import SeriesSet

CHAINS = 20
_ALL_DAYS = 10**6


def events(count: int) -> Iterator[Event]:
    """`count` events of `CHAINS` x 105 keys, a day of all keys after the other. The same ones at every call."""
    chain = bakery.load()
    days = chain.as_of_dates(_ALL_DAYS)
    writers = [EventWriter(_renamed(chain, number)) for number in range(CHAINS)]

    def endless() -> Iterator[Event]:
        for day in itertools.count():
            for number, writer in enumerate(writers):
                shift = number * len(days) // CHAINS
                yield from writer.events_of(days[(day + shift) % len(days)])

    return itertools.islice(endless(), count)


def schema() -> Schema:
    """The schema that `events` are written with: what isn't known of the bakery is left out."""
    return EventWriter(bakery.load()).schema


def write_schema(directory: Path, written: Schema | None = None, name: str = "features.avsc") -> Path:
    """Writes a schema to a file in `directory`, as a worker's setting wants it; that of `events`, if `written` is None."""
    path = directory / name
    path.write_text(json.dumps(schema() if written is None else written), encoding="utf-8")
    return path


def fill(bootstrap_servers: str, topic: str, messages: Iterable[Event]) -> int:
    """Put `messages` on `topic`, by a plain idempotent producer; waits until the broker has them all. Gives their bytes.

    Raises `RuntimeError` if one isn't delivered.
    """
    failures: list[str] = []

    def delivered(error: object, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": PARTITIONER,
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 500_000,
            "delivery.report.only.error": True,
            "on_delivery": delivered,
        }
    )
    size_bytes = 0
    for event in messages:
        size_bytes += len(event.value)
        while True:
            try:
                producer.produce(topic, event.value, event.key)
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(120.0) or failures:
        raise RuntimeError(f"filling {topic}: {failures[0] if failures else 'not delivered within 120 s'}")
    return size_bytes


def _renamed(chain: SeriesSet, number: int) -> SeriesSet:
    return replace(chain, store_ids=tuple(f"{store}-{number:02d}" for store in chain.store_ids))
