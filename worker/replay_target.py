"""The topics that a replay writes to: what is there is checked first, what is missing is made like the live ones.

Checking and making are apart, so that a refused command leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource  # type: ignore[attr-defined] # untyped there
from confluent_kafka.cimpl import NewTopic

from schemas.asking import MOVING, UNKNOWN, answered
from worker.avro import Schema, fingerprint
from worker.deadline import Clock, Deadline
from worker.errors import ConfigurationError, UnreachableError
from worker.registry import RegistrySchemas

TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What makes a topic: its width, its copies, and the settings that aren't the brokers' own."""

    partitions: int
    replication: int
    config: Mapping[str, str]


def shape_of(
    admin: AdminClient, topic: str, *, clock: Clock = time.monotonic, pause: Callable[[float], None] = time.sleep
) -> Shape | None:
    """The topic's shape; None if there is none of that name. A leader that moves is asked again. Raises `UnreachableError`."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)

    def ask(timeout_s: float) -> Any:  # noqa: ANN401 - confluent_kafka's, untyped there
        found = admin.list_topics(timeout=timeout_s).topics.get(topic)
        if found is None or (found.error is not None and found.error.code() in UNKNOWN):
            return None, {}
        if found.error is not None:
            raise KafkaException(found.error)
        if not found.partitions:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "the topic has no partitions yet"))
        return found, admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(TIMEOUT_S)

    try:
        found, entries = answered(ask, TIMEOUT_S, clock=clock, pause=pause)
        if found is None:
            return None
    except KafkaException as exception:
        raise UnreachableError(
            f"asking for topic {topic}: {exception.args[0].str()}; are its brokers up, and may this principal describe it?"
        ) from exception
    own = {
        name: entry.value
        for name, entry in entries.items()
        if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value and entry.value is not None
    }
    return Shape(
        partitions=len(found.partitions),
        replication=max((len(partition.replicas) for partition in found.partitions.values()), default=1),
        config=own,
    )


def create_like(admin: AdminClient, topic: str, shape: Shape) -> None:
    """Create `topic`, unless somebody else just did. Raises `ConfigurationError` if the broker refuses."""
    new = NewTopic(
        topic,
        num_partitions=shape.partitions,
        replication_factor=shape.replication,
        config=dict(shape.config),
    )
    try:
        admin.create_topics([new], operation_timeout=TIMEOUT_S)[topic].result(TIMEOUT_S)
    except KafkaException as exception:
        if exception.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return  # another process of the same replay was faster
        raise ConfigurationError(
            f"creating topic {topic}: {exception.args[0].str()}; create it by hand, with the settings of the live one, "
            "or grant this principal CREATE"
        ) from exception


def first_value(consumer: Consumer, topic: str, partitions: int, *, clock: Clock = time.monotonic) -> bytes | None:
    """The value of any committed record that `topic` has; None if it has none.

    consumer: with `enable.partition.eof`, used for nothing else at the time. What passes by itself (a leader that moves) is
    waited for. Raises `UnreachableError`.
    """
    deadline = Deadline.after(TIMEOUT_S, clock)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    ended: set[int] = set()
    try:
        while len(ended) < partitions:
            message = consumer.poll(deadline.remaining_s)
            if message is None:
                raise UnreachableError(f"reading {topic}: nothing came within {TIMEOUT_S:g} s; are its brokers up?")
            if (error := message.error()) is None:
                deadline = Deadline.after(TIMEOUT_S, clock)
                if (value := message.value()) is not None:
                    return bytes(value)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes start so
                ended.add(int(message.partition() or 0))
            elif deadline.expired or error.code() not in MOVING | UNKNOWN:
                raise UnreachableError(f"reading {topic}: {error.str()}; run the same command again")
    except KafkaException as exception:
        raise UnreachableError(f"reading {topic}: {exception.args[0].str()}") from exception
    finally:
        consumer.unassign()
    return None


def check_target(topic: str, value: bytes | None, prefix: bytes | None, *, begun: bool) -> None:
    """Refuse a target that holds something else than this replay's forecasts.

    value: of its first record, None if it is empty. prefix: what our forecasts start with; None if a registry numbers
    schemas, where `check_subject` compares them. begun: the replay's name is known to the broker.
    """
    if value is None:
        return
    if prefix is not None and not value.startswith(prefix):
        raise ConfigurationError(
            f"topic {topic}: holds records of another schema: got one that starts with {value[: len(prefix)].hex()}, "
            f"expected {prefix.hex()} (wire.forecast); choose another --name, or delete that topic"
        )
    if not begun:
        raise ConfigurationError(
            f"topic {topic}: holds records, but no progress is kept for this --name (brokers forget it after "
            "offsets.retention.minutes, 7 days by default, or somebody else wrote them); expected an empty topic: choose "
            "another --name, or delete the topic"
        )


def check_subject(registry: RegistrySchemas, topic: str, schema: Schema) -> None:
    """Refuse a target whose registered schema isn't the one that would be written."""
    found = registry.latest(f"{topic}-value")
    if found is not None and fingerprint(found) != fingerprint(schema):
        raise ConfigurationError(
            f"topic {topic}: its subject {topic}-value has another schema: got fingerprint {fingerprint(found).hex()}, "
            f"expected {fingerprint(schema).hex()} (wire.forecast); choose another --name, or delete topic and subject"
        )
