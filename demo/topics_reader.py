"""Reads whole topics back with a plain consumer: what was committed, and nothing else. Shares no code with the worker."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import fastavro
import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from demo.evaluation import DeadLetterRecord, ForecastRecord
from schemas.load import load_schema

_BATCH: Final = 5000
_HEADER_BYTES: Final = 10


class TopicReader:
    """Reads a topic from its beginning, `isolation.level=read_committed`, in no group. Close it after use."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
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
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in partitions])

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
    content = _content_of("sku_forecast")

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
    content = _content_of("dead_letter")

    def decode(value: bytes) -> DeadLetterRecord:
        record = content(value)
        return DeadLetterRecord(source=(record["partition"], record["offset"]), reason=record["reason"])

    return decode


def _content_of(name: str) -> Callable[[bytes], dict[str, Any]]:
    """Reads values of the packaged schema `name` as fastavro does, but dates as numbers."""
    schema = fastavro.parse_schema(_plain_dates(dict(load_schema(None, name))))

    def content(value: bytes) -> dict[str, Any]:
        record = fastavro.schemaless_reader(io.BytesIO(value[_HEADER_BYTES:]), schema, None)
        assert isinstance(record, dict)  # noqa: S101 - the schema is a record
        return record

    return content


def _plain_dates(schema: object) -> Any:  # noqa: ANN401 - an Avro schema is a str, a list or a dict
    """Without logical types: dates stay numbers of days."""
    if isinstance(schema, dict):
        return {key: _plain_dates(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_plain_dates(value) for value in schema]
    return schema
