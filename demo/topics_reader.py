"""Reads whole topics back with a plain consumer: what was committed, and nothing else. Shares no code with the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from demo.evaluation import DeadLetterRecord, ForecastRecord
from demo.single_object import SingleObject
from schemas.asking import partitions_of
from schemas.load import load_schema

_BATCH: Final = 5000
_QUESTION_S: Final = 10.0


class TopicReader:
    """Reads a topic from its beginning, `isolation.level=read_committed`, in no group. Close it after use.

    partitions: those to read; all of the topic's, if None. Raises `KafkaException` if the topic isn't there.
    """

    def __init__(self, bootstrap_servers: str, topic: str, partitions: Sequence[int] | None = None) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "demo-reader",  # asked for by the client, joined by nobody: assign() is used, no commit
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": False,
                "fetch.wait.max.ms": 50,
                "log_level": 3,
            }
        )
        there = partitions_of(self._consumer, topic, _QUESTION_S)
        self.partitions: Sequence[int] = sorted(there) if partitions is None else partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in self.partitions])

    def poll(self, timeout_s: float) -> list[Message]:
        """What comes within `timeout_s`, 5,000 messages at most; waits that long if it is less. Raises `KafkaException`."""
        messages = self._consumer.consume(_BATCH, timeout_s)
        for message in messages:
            error = message.error()
            if error is not None and error.code() != KafkaError._TRANSPORT:  # noqa: SLF001 - librdkafka's own retry
                raise KafkaException(error)
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """Leave. Idempotent."""
        self._consumer.close()


def read_until_quiet(reader: TopicReader, quiet_s: float) -> Iterator[Message]:
    """All there is, and what else comes, until nothing has come for `quiet_s`: later duplicates are to be seen too."""
    last_s = time.monotonic()
    while time.monotonic() - last_s < quiet_s:
        for message in reader.poll(0.1):
            last_s = time.monotonic()
            yield message


def forecast_decoder() -> Callable[[bytes], ForecastRecord]:
    """Decodes the value of a forecast in single-object encoding, by fastavro."""
    content = SingleObject(load_schema(None, "sku_forecast")).decode

    def decode(value: bytes) -> ForecastRecord:
        record = content(value)
        return ForecastRecord(
            source=(record["source_partition"], record["source_offset"]),
            sku_id=record["sku_id"],
            store_id=record["store_id"],
            as_of=record["as_of"],
            quantiles=np.array(record["quantiles"], dtype=np.float32).T,
        )

    return decode


def dead_letter_decoder() -> Callable[[bytes], DeadLetterRecord]:
    """Decodes the value of a dead letter in single-object encoding, by fastavro."""
    content = SingleObject(load_schema(None, "dead_letter")).decode

    def decode(value: bytes) -> DeadLetterRecord:
        record = content(value)
        return DeadLetterRecord(source=(record["partition"], record["offset"]), reason=record["reason"])

    return decode
