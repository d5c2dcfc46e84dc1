"""Reads a topic from given positions up to an end that is fixed at the start: for tools, in no group.

Only what was committed is read. Done is told by position and never by a count: transaction markers, aborted records and
what compaction took away have offsets too. A partition is done once a record at or beyond its end was seen, or the broker
said that there is nothing more before an offset at or beyond its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.asking import UNKNOWN, answered, ends_of, partitions_of, without_errors
from worker.deadline import Clock
from worker.errors import UnreachableError
from worker.headers import headers_of
from worker.records import Record, Span

QUESTION_TIMEOUT_S = 10.0
STALL_S = 60.0
"""A broker that sends nothing for so long, although there is more, counts as unreachable."""

_BATCH_RECORDS = 5000
_POLL_S = 0.2
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})  # noqa: SLF001


class TopicReader:
    """Reads one topic. Inside a `with` block, which closes the consumer at its end.

    Args:
        consumer: made from `worker.clients.reader_config`, owned by the reader from here on.
        topic: must exist; else `UnreachableError` by the first question.
        clock: monotonic seconds. pause: waits for that many seconds, before a question is asked again.
    """

    def __init__(
        self, consumer: Consumer, topic: str, *, clock: Clock, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._clock = clock
        self._pause = pause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic

    def partitions(self) -> Sequence[int]:
        """Its partitions, ascending. Raises `UnreachableError` if it isn't there or no broker answers."""
        try:
            return list(
                partitions_of(self._consumer, self._topic, QUESTION_TIMEOUT_S, clock=self._clock, pause=self._pause)
            )
        except KafkaException as exception:
            if exception.args[0].code() in UNKNOWN:
                raise UnreachableError(
                    f"topic {self._topic}: {exception.args[0].str()}; correct the name, or create the topic"
                ) from exception
            raise self._unreachable("asking for the partitions", exception.args[0]) from exception

    def spans(self) -> Mapping[int, Span]:
        """Partition -> from its first offset to its end as of now: where the oldest transaction still open begins."""
        try:
            return {partition: Span(*self._ends(partition)) for partition in self.partitions()}
        except KafkaException as exception:
            raise self._unreachable("asking for first and last offsets", exception.args[0]) from exception

    def spans_between(self, from_ms: int | None, to_ms: int | None) -> Mapping[int, Span]:
        """The part of each of `spans()` from the first record at or after `from_ms` up to the first at or after `to_ms`.

        None leaves that side as it is. Milliseconds since 1970, by the messages' own timestamps.
        """
        spans = dict(self.spans())
        if from_ms is not None:
            spans = {p: Span(min(at, spans[p].next_offset), spans[p].next_offset) for p, at in self._at(from_ms, spans)}
        if to_ms is not None:
            spans = {p: Span(spans[p].first_offset, max(at, spans[p].first_offset)) for p, at in self._at(to_ms, spans)}
        return spans

    def read(self, spans: Mapping[int, Span]) -> Generator[Record]:
        """Every committed record of `spans`, in offset order within each partition, partitions mixed.

        Blocks while it waits for the broker. Raises `UnreachableError` if that stops answering. A span that retention has
        overtaken begins at what is left.
        """
        ends = {
            partition: span.next_offset for partition, span in spans.items() if span.first_offset < span.next_offset
        }
        if not ends:
            return
        places = [TopicPartition(self._topic, p, spans[p].first_offset) for p in sorted(ends)]
        self._consumer.assign(places)
        self._consumer.resume(places)  # an earlier reading paused them at their ends, and librdkafka remembers
        try:
            yield from self._read(ends)
        finally:
            self._consumer.unassign()

    def _read(self, ends: dict[int, int]) -> Iterator[Record]:
        """Takes partitions out of `ends` as they are done."""
        moved_s = self._clock()
        while ends:
            messages = self._consumer.consume(_BATCH_RECORDS, _POLL_S)
            if not messages and self._clock() - moved_s > STALL_S:
                raise UnreachableError(
                    f"topic {self._topic}: nothing came for {STALL_S:g} s, and partitions {sorted(ends)} aren't read to "
                    "their ends; is their leader up?"
                )
            for message in messages:
                partition, offset = int(message.partition() or 0), int(message.offset() or 0)
                if not self._says_position(message) or partition not in ends:
                    continue
                if offset >= ends[partition]:
                    del ends[partition]
                    self._consumer.pause([TopicPartition(self._topic, partition)])
                elif message.error() is None:
                    yield _record(message)
            if messages:
                moved_s = self._clock()  # not before: what the caller did with the records took its own time

    def _says_position(self, message: Message) -> bool:
        """True for a record and for the end of a partition, whose offsets say how far we are.

        Raises `UnreachableError` for an error that doesn't pass by itself.
        """
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            return True
        if error.code() in _PASSING:
            return False
        raise self._unreachable("reading", error)

    def _at(self, time_ms: int, spans: Mapping[int, Span]) -> Iterator[tuple[int, int]]:
        """Partition -> first offset at or after that time; the span's end if there is none."""
        places = [TopicPartition(self._topic, partition, time_ms) for partition in sorted(spans)]
        try:
            found = answered(
                lambda timeout_s: without_errors(self._consumer.offsets_for_times(places, timeout=timeout_s)),
                QUESTION_TIMEOUT_S,
                clock=self._clock,
                pause=self._pause,
            )
        except KafkaException as exception:
            raise self._unreachable("asking for offsets by time", exception.args[0]) from exception
        for place in found:
            offset = -1 if place.offset is None else place.offset
            yield place.partition, offset if offset >= 0 else spans[place.partition].next_offset

    def _ends(self, partition: int) -> tuple[int, int]:
        return ends_of(self._consumer, self._topic, partition, QUESTION_TIMEOUT_S, clock=self._clock, pause=self._pause)

    def _unreachable(self, doing: str, error: KafkaError) -> UnreachableError:
        return UnreachableError(
            f"topic {self._topic}: {doing}: {error.str()} ({error.name()}); check kafka.bootstrap.servers, the topic's name "
            "and the permission to read it"
        )


def _record(message: Message) -> Record:
    key, value = message.key(), message.value()
    return Record(
        topic=str(message.topic()),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        timestamp_ms=int(message.timestamp()[1]),
        key=None if key is None else bytes(key),
        value=None if value is None else bytes(value),
        headers=tuple(headers_of(message)),
    )
