"""Asks a broker for offsets: the oldest that is left, the end of what is decided, the first one of a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # the package re-exports it untyped

from schemas.asking import answered
from worker.deadline import Clock
from worker.errors import UnreachableError

TIMEOUT_S: Final = 30.0


def offsets_of(
    admin: AdminClient,
    topic: str,
    partitions: Sequence[int],
    at: Literal["earliest", "stable", "end"] | int,
    *,
    clock: Clock = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[int, tuple[int, int]]:
    """Partition -> offset and timestamp (ms); offset -1 if there is no such record, timestamp -1 if it isn't known.

    at: `stable` is the end of what is decided, behind which only records of open transactions lie; `end` counts those;
    a number is a time in milliseconds since 1970, and means the first record at or after it. A leader that moves is asked
    again (clock: monotonic). Raises `UnreachableError`.
    """
    spec: Any
    if at == "earliest":
        spec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    elif isinstance(at, int):
        spec = OffsetSpec.for_timestamp(at)
    else:
        spec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    level = IsolationLevel.READ_UNCOMMITTED if at == "end" else IsolationLevel.READ_COMMITTED
    requests = {TopicPartition(topic, partition): spec for partition in partitions}

    def ask(timeout_s: float) -> Mapping[int, Any]:
        asked = admin.list_offsets(requests, isolation_level=level, request_timeout=timeout_s)
        return {place.partition: future.result(TIMEOUT_S) for place, future in asked.items()}

    try:
        found = answered(ask, TIMEOUT_S, clock=clock, pause=pause)
    except KafkaException as exception:
        raise UnreachableError(
            f"asking for offsets of {topic}: {exception.args[0].str()}; are its leaders up? Run the same command again"
        ) from exception
    return {partition: (int(result.offset), int(result.timestamp)) for partition, result in found.items()}
