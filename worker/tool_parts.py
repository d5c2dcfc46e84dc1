"""What the tools beside the worker are made of, from the same settings: schemas, framing, readers. Nothing is registered.

The second place, after `compose.py`, that names concrete classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from worker.clients import made, reader_config
from worker.compose_wire import Contracts, reading_contracts
from worker.logs import kafka_logger
from worker.settings_model import Settings
from worker.topic_reader import TopicReader


@contextmanager
def reading(settings: Settings) -> Iterator[Contracts]:
    """The three schemas, and a framing that reads: a registry is asked for schemas and told of none.

    Raises `SchemaError` if a file is wrong.
    """
    contract = reading_contracts(settings)
    try:
        yield contract
    finally:
        contract.close()


def reader_of(settings: Settings, topic: str) -> TopicReader:
    """A reader of `topic`; enter it, so that it is closed."""
    with made("consumer"):
        consumer = Consumer(reader_config(settings), logger=kafka_logger())
    return TopicReader(consumer, topic, clock=time.monotonic)
