"""Reads compacted topics to their ends: the tables that a consumer begins with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from schemas.asking import MOVING, UNKNOWN, answered, partitions_of

_BATCH: Final = 5000
_TIMEOUT_S: Final = 60.0
_STALL_S: Final = 90.0  # longer than a transaction may stay open

Place = tuple[str, int]
"""Topic and partition."""


class TableError(ValueError):
    """The topics aren't there, or don't fit each other. The message says what was got and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What was read, in the order of each partition, and where to go on reading."""

    messages: Sequence[Message]
    ends: Mapping[Place, int]


def partition_count(consumer: Consumer, topics: Sequence[str]) -> int:
    """How many partitions each of `topics` has. Raises `TableError` if one isn't there or they differ."""
    counts, missing = {}, []
    for topic in topics:
        try:
            counts[topic] = len(partitions_of(consumer, topic, _TIMEOUT_S))
        except KafkaException as exception:
            if exception.args[0].code() not in UNKNOWN:
                raise
            missing.append(topic)
    if missing:
        raise TableError(f"topics that don't exist: {', '.join(missing)}; create them, compacted")
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
        raise TableError(f"partitions: {got}; expected the same number for all, so that a key's messages meet")
    return counts[topics[0]]


def read_tables(bootstrap_servers: str, topics: Sequence[str], numbers: Sequence[int], *, own: str) -> Tables:
    """All committed messages of the partitions `numbers` of `topics`. Blocks until they are read.

    Inputs are read to their last stable offset. `own`, the topic that the caller writes, is read to its very end: a transaction
    that is still open there is waited for, as it may be a predecessor's that is being committed.
    Raises `KafkaException`; with `_TIMED_OUT` if nothing has come for 90 s and the end isn't reached.
    """
    places = [(topic, number) for topic in topics for number in numbers]
    ends = _ends(bootstrap_servers, places, own)
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "table-reader",  # asked for by the client, joined by nobody: assign() is used, nothing is committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,  # so long a broker waits for more before it says that this is the end
        }
    )
    try:
        return Tables(messages=_read(reader, ends), ends=ends)
    finally:
        reader.close()


def _ends(bootstrap_servers: str, places: Sequence[Place], own: str) -> dict[Place, int]:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    ends: dict[Place, int] = {}
    for isolation in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
        wanted = [place for place in places if (place[0] == own) == (isolation is IsolationLevel.READ_UNCOMMITTED)]
        if wanted:
            ends |= answered(partial(_latest, admin, wanted, isolation), _TIMEOUT_S)
    return ends


def _latest(
    admin: AdminClient, places: Sequence[Place], isolation: IsolationLevel, timeout_s: float
) -> dict[Place, int]:
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
    answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=timeout_s)
    return {(place.topic, place.partition): answer.result(_TIMEOUT_S).offset for place, answer in answers.items()}


def _read(reader: Consumer, ends: Mapping[Place, int]) -> list[Message]:
    """By the broker's word that there is no more, not by count: what was aborted or compacted away is never delivered."""
    missing = {place for place, end in ends.items() if end > 0}
    # A client that doesn't know the leaders yet waits half a second for the offsets.
    reader.list_topics(timeout=_TIMEOUT_S)
    reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in missing])
    messages: list[Message] = []
    last_s = time.monotonic()
    while missing:
        for message in reader.consume(_BATCH, 0.1):
            place, error = (str(message.topic()), message.partition() or 0), message.error()
            if error is not None and error.code() in MOVING:
                continue  # the client goes on by itself
            last_s, offset = time.monotonic(), message.offset() or 0
            if error is None and offset < ends[place]:
                messages.append(message)
            elif error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                raise KafkaException(error)
            elif offset >= ends[place]:
                missing.discard(place)
        if missing and time.monotonic() - last_s > _STALL_S:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{sorted(missing)} weren't read to {ends}"))  # noqa: SLF001
    return messages
