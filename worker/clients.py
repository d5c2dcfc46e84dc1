"""librdkafka's configuration for each client, made from the settings.                                           (pure)

What the worker's guarantees rest on is set here and can't be overridden: `settings_checks.py` refuses those keys under
`[kafka]`. Everything else (TLS, SASL, compression, time-outs) is the operator's, and wins over the defaults below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaException

from worker.errors import ConfigurationError
from worker.settings_model import Settings

Config = dict[str, Any]

CONSUMER_DEFAULTS: Mapping[str, Any] = {
    # A full prefetch queue is looked at again after so long; the default of 1000 starves a fast worker.
    "fetch.queue.backoff.ms": 50,
    "fetch.wait.max.ms": 100,
    # Five batches ahead. With the default of 100,000 the prefetch queue kept growing in steps over millions of events
    # (274 to 330 MiB in all), with this it stays level, and the rate is the same.
    "queued.min.messages": 20_000,
}
PRODUCER_DEFAULTS: Mapping[str, Any] = {
    # The pause between two tries of a transactional request. With the default of 100, every commit that meets the
    # end of the previous one on the broker (CONCURRENT_TRANSACTIONS) costs that much.
    "retry.backoff.ms": 10,
    "linger.ms": 5,
    "queue.buffering.max.messages": 500_000,
}


def consumer_config(settings: Settings) -> Config:
    """Of the consumer: reads committed records, commits nothing by itself."""
    reads = settings.input
    owned: Config = {
        "group.id": reads.group_id,
        "group.instance.id": reads.group_instance_id,
        "auto.offset.reset": "error" if reads.offset_reset == "fail" else reads.offset_reset,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "queued.max.messages.kbytes": reads.memory_bytes // 1024,
    }
    if reads.group_protocol == "consumer":
        owned["group.protocol"] = "consumer"
    else:
        owned["partition.assignment.strategy"] = "cooperative-sticky"
    kafka = settings.kafka
    return _without_none({**CONSUMER_DEFAULTS, **kafka.common, **kafka.consumer, **owned})


def producer_config(settings: Settings) -> Config:
    """Of the producer: transactional, or merely idempotent for at-least-once."""
    delivery = settings.delivery
    owned: Config = {
        "enable.idempotence": True,
        # The same partition for a key as Java's clients choose.
        "partitioner": "murmur2_random",
        "delivery.report.only.error": True,
    }
    if delivery.guarantee == "exactly_once":
        owned["transactional.id"] = delivery.transactional_id
        owned["transaction.timeout.ms"] = int(delivery.transaction_timeout_s * 1000)
    kafka = settings.kafka
    return {**PRODUCER_DEFAULTS, **kafka.common, **kafka.producer, **owned}


def control_consumer_config(settings: Settings) -> Config:
    """Of the consumers of the control topics: read all from the beginning, in no group (librdkafka wants a name for it)."""
    kafka = settings.kafka
    owned: Config = {
        "group.id": f"{settings.input.group_id}-control",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
    }
    return {**kafka.common, **kafka.consumer, **owned}


def control_producer_config(settings: Settings) -> Config:
    """Of the producer of commands and states: at once, outside of transactions."""
    kafka = settings.kafka
    return {**kafka.common, **kafka.producer, "enable.idempotence": True, "linger.ms": 0}


def reader_config(settings: Settings) -> Config:
    """Of a consumer that reads topics from given offsets, in no group: committed records only, nothing committed."""
    owned: Config = {
        # The client asks for a name, but nobody joins: partitions are assigned by hand.
        "group.id": f"{settings.input.group_id}.reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # what retention took away while we read isn't there to be read
        "isolation.level": "read_committed",
    }
    kafka = settings.kafka
    # Group keys of the worker's own consumer (session.timeout.ms, say) do no harm here.
    return {**CONSUMER_DEFAULTS, **kafka.common, **kafka.consumer, **owned}


def max_message_bytes(settings: Settings) -> int:
    """The largest message that the producer sends, bytes of key and value. What is larger must never reach it."""
    config = producer_config(settings)
    return int(config.get("message.max.bytes", 1_000_000))


def redrive_config(settings: Settings, transactional_id: str) -> Config:
    """Of the producer that redrives dead letters: transactional whatever the worker's guarantee is."""
    owned: Config = {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": int(settings.delivery.transaction_timeout_s * 1000),
    }
    return {**producer_config(settings), **owned}


def admin_config(settings: Settings) -> Config:
    """Of the client that only asks for metadata and creates topics."""
    return dict(settings.kafka.common)


@contextmanager
def made(client: str) -> Iterator[None]:
    """Around the making of a client: what librdkafka says of wrong keys and values becomes a `ConfigurationError`."""
    try:
        yield
    except KafkaException as exception:
        raise ConfigurationError(_refused(client, exception.args[0].str())) from exception
    except (TypeError, ValueError) as error:
        raise ConfigurationError(_refused(client, str(error))) from error


def _refused(client: str, reason: str) -> str:
    return (
        f"kafka settings of the {client}: {reason.strip()}; correct the key under [kafka] or [kafka.{client}], "
        "or the setting that it stands for"
    )


def _without_none(config: Config) -> Config:
    return {key: value for key, value in config.items() if value is not None}
