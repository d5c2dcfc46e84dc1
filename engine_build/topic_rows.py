"""The last days of a topic, straight from Kafka: a sample of its events, and how many arrived in each commit window.

Reads without a group and commits nothing, so workers notice nothing of it. Of each day the values with the smallest keyed
hash are kept: a random sample that is the same whatever the order of reading, in bounded memory.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from engine_build.calibration import DEFAULT_ROWS, Calibration, calibration_of, wanted_fields
from engine_build.errors import CalibrationError, SourceError, TrafficError
from engine_build.event_decoding import EventDecoder, RegisteredSchema, columns_of
from engine_build.kafka_access import KafkaAccess, TopicSource
from engine_build.traffic import Sizes, sizes_of
from schemas.asking import MOVING, answered, ends_of, partitions_of, without_errors
from schemas.load import load_schema

_DAY_MS: Final = 86_400_000
_TIMEOUT_S: Final = 30.0
_STALL_S: Final = 60.0
_KEPT_PER_ROW: Final = 4


def calibration_from_topic(
    source: TopicSource,
    access: KafkaAccess,
    inputs: Mapping[str, int | None],
    schema: Mapping[str, Any],
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    **options: Any,  # noqa: ANN401 - those of `calibration_of`
) -> Calibration:
    """Calibration rows from events of the last days of a topic; `options` as in `calibration_of`.

    Raises `SourceError` if broker or topic can't be read, `CalibrationError` if no event can be decoded or the rows don't do.
    """
    sampled = _Sample(_KEPT_PER_ROW * rows, seed)
    with _Reader(source, access) as reader:
        for message in reader.messages():
            sampled.add(message)
    values = sampled.values()
    writers = [load_schema(path, "") for path in access.writer_schemas]
    with _registered(access.registry) as registered:
        decoder = EventDecoder(dict(schema), writers, registered)
        events = [event for event in map(decoder.decode, values) if event is not None]
    columns, unfit = columns_of(events, wanted_fields(inputs, schema))
    name = f"topic {source.topic}"
    if len(events) == unfit:
        got = f"got {len(values):,} values in the last {source.days:g} days, none of which is an event of the schema"
        raise CalibrationError(name, [f"{got}; check topic, framing and writer schemas"])
    return calibration_of(columns, inputs, schema, source=name, rows=rows, seed=seed, **options)


def demand_from_topic(source: TopicSource, access: KafkaAccess, *, window_s: float, workers: int = 1) -> Sizes:
    """Rows per commit window of `window_s` seconds and worker, by the records' timestamps; windows without rows don't count.

    Timestamps are the producers' unless the topic says LogAppendTime: then they are arrival times exactly.
    Raises `SourceError`, `TrafficError` if there are no records.
    """
    counts: dict[int, int] = {}
    with _Reader(source, access) as reader:
        for message in reader.messages():
            window = int(message.timestamp()[1] / (1000 * window_s))
            counts[window] = counts.get(window, 0) + 1
    if not counts:
        raise TrafficError(f"topic {source.topic}", [f"got no records in the last {source.days:g} days"])
    return sizes_of([-(-count // workers) for count in counts.values()])


class _Sample:
    """At most `limit` values of each day of timestamps: those with the smallest hash under `seed`."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit = limit
        self._key = seed.to_bytes(8, "little", signed=True)
        self._days: dict[int, list[tuple[int, bytes]]] = {}

    def add(self, message: Message) -> None:
        value = message.value()
        if value is None:
            return
        heap = self._days.setdefault(message.timestamp()[1] // _DAY_MS, [])
        rank = -int.from_bytes(hashlib.blake2b(value, digest_size=8, key=self._key).digest(), "little")
        if len(heap) < self._limit:
            heapq.heappush(heap, (rank, value))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, value))

    def values(self) -> list[bytes]:
        return sorted(value for heap in self._days.values() for _, value in heap)


class _Reader:
    """Every record of the span that ended when it was opened."""

    def __init__(self, source: TopicSource, access: KafkaAccess) -> None:
        self._source = source
        self._config: dict[str, Any] = {
            **access.config,
            "group.id": "engine-build",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 3,
        }
        self._consumer: Consumer | None = None

    def __enter__(self) -> Self:
        try:
            self._consumer = Consumer(self._config)
        except KafkaException as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def messages(self) -> Iterator[Message]:
        """All records from `days` before the newest one to what was the end; blocks while it reads."""
        assert self._consumer is not None  # noqa: S101 - entered
        try:
            ends = self._ends()
            starts = self._starts(ends)
            waiting = {place.partition for place in starts if place.offset < ends[place.partition]}
            if not waiting:
                return
            self._consumer.assign([place for place in starts if place.partition in waiting])
            idle_s = 0.0
            while waiting:
                batch = self._consumer.consume(5000, 0.2)
                idle_s = 0.0 if batch else idle_s + 0.2
                if idle_s > _STALL_S:
                    raise SourceError(
                        f"topic {self._source.topic}", [f"got nothing for {_STALL_S:g} s; is the broker up?"]
                    )
                yield from self._taken(batch, ends, waiting)
        except KafkaException as error:
            raise self._failed(error) from error

    @staticmethod
    def _taken(batch: Sequence[Message], ends: Mapping[int, int], waiting: set[int]) -> Iterator[Message]:
        for message in batch:
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or partition not in waiting:
                continue
            error = message.error()
            if error is not None and error.code() in MOVING:
                continue  # the client goes on by itself
            if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                raise KafkaException(error)
            # The last offsets may be transaction markers, which are never delivered: then the partition's end is told.
            if error is not None or offset >= ends[partition] - 1:
                waiting.discard(partition)
            if error is None and offset < ends[partition]:
                yield message

    def _ends(self) -> dict[int, int]:
        assert self._consumer is not None  # noqa: S101
        topic = self._source.topic
        partitions = partitions_of(self._consumer, topic, _TIMEOUT_S)
        return {partition: ends_of(self._consumer, topic, partition, _TIMEOUT_S)[1] for partition in partitions}

    def _starts(self, ends: Mapping[int, int]) -> list[TopicPartition]:
        """Where the span begins in each partition; its end where it has nothing so young."""
        assert self._consumer is not None  # noqa: S101
        admin = AdminClient({key: value for key, value in self._config.items() if key in self._admin_keys()})
        asked = {
            TopicPartition(self._source.topic, partition): OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
            for partition in ends
        }
        newest = answered(
            lambda timeout_s: max(
                future.result(timeout=_TIMEOUT_S).timestamp
                for future in admin.list_offsets(asked, request_timeout=timeout_s).values()
            ),
            _TIMEOUT_S,
        )
        since_ms = max(0, int(newest - self._source.days * _DAY_MS) + 1)
        times = [TopicPartition(self._source.topic, partition, since_ms) for partition in ends]
        found = answered(partial(self._at, times), _TIMEOUT_S)
        return [
            TopicPartition(each.topic, each.partition, each.offset if each.offset >= 0 else ends[each.partition])
            for each in found
        ]

    def _at(self, times: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
        assert self._consumer is not None  # noqa: S101
        return without_errors(self._consumer.offsets_for_times(times, timeout=timeout_s))

    def _admin_keys(self) -> set[str]:
        own = {"group.id", "enable.auto.commit", "enable.partition.eof", "isolation.level"}
        return set(self._config) - own

    def _failed(self, error: KafkaException) -> SourceError:
        got = f"can't be read: {error.args[0].str()}; check name, permissions, and the brokers and their settings"
        return SourceError(f"topic {self._source.topic}", [got])


@contextmanager
def _registered(settings: Mapping[str, object] | None) -> Iterator[RegisteredSchema | None]:
    """Asks the registry for a schema by its id; None without a registry. Its connections are closed at the end."""
    if settings is None:
        yield None
        return
    with SchemaRegistryClient(dict(settings)) as client:

        def ask(schema_id: int) -> str:
            try:
                return client.get_schema(schema_id).schema_str or ""
            except SchemaRegistryError as error:
                got = f"the registry {settings['url']} can't tell: {error}"
                raise SourceError(f"schema id {schema_id}", [got]) from error

        yield ask
