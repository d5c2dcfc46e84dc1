"""What the tools beside the worker are made of, from the same settings: schemas, framing, readers. Nothing is registered.

The second place, after `compose.py`, that names concrete classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from schemas.load import load_schema
from worker.clients import made, reader_config
from worker.compose_wire import Contracts, registry_of
from worker.framing import ConfluentFraming, Framing, SingleObjectFraming
from worker.logs import kafka_logger
from worker.settings_model import Settings
from worker.topic_reader import TopicReader


@contextmanager
def reading(settings: Settings) -> Iterator[Contracts]:
    """The three schemas, and a framing that reads: a registry is asked for schemas and told of none.

    Raises `SchemaError` if a file is wrong.
    """
    wire = settings.wire
    features = load_schema(wire.features, "sku_features")
    forecast = load_schema(wire.forecast, "sku_forecast")
    dead_letter = load_schema(wire.dead_letter, "dead_letter")
    if wire.framing == "single_object":
        others = [load_schema(path, path.name) for path in wire.writer_schemas]
        framing: Framing = SingleObjectFraming([features, *others, forecast, dead_letter])
        yield Contracts(features=features, forecast=forecast, dead_letter=dead_letter, framing=framing)
        return
    registry = registry_of(settings)
    try:
        framing = ConfluentFraming(ask=registry.schema, clock_s=time.monotonic, outage_ttl_s=0.0)
        yield Contracts(features=features, forecast=forecast, dead_letter=dead_letter, framing=framing)
    finally:
        registry.close()


def reader_of(settings: Settings, topic: str) -> TopicReader:
    """A reader of `topic`; enter it, so that it is closed."""
    with made("consumer"):
        consumer = Consumer(reader_config(settings), logger=kafka_logger())
    return TopicReader(consumer, topic, clock=time.monotonic)
