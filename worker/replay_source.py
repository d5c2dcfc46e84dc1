"""A span of a topic as a `Source`: partitions assigned by hand, each read from where its replay stands to its end.

Rules of this file:

- Done is told by place, never by count: a partition is done once the consumer stands at or behind the span's end. Markers,
  aborted records and compaction holes take offsets without ever being delivered, so this is the one file that asks a
  consumer for its position. The answer decides when to stop and nothing else: what is committed comes from batches.
- A position from before a seek says nothing; librdkafka forgets it then, and the broker's "end of partition" is heard anew.
- Nobody rebalances here: partitions are assigned, not subscribed to, so the live group never hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.asking import committed_of
from worker.deadline import Clock
from worker.errors import FatalDeliveryError, ReplayStoppedError
from worker.headers import headers_of
from worker.records import Record, Records, Span
from worker.source import Lag, Listener
from worker.source_errors import check, fatal

log = structlog.get_logger(__name__)

COMMITTED_TIMEOUT_S = 30.0
BACKSTOP_S = 0.02
"""How long one look waits while nothing may be read; short, so that a change is noticed."""


class Allowance(Protocol):
    """How many records may be read now: a rate, or a pause while live work is behind."""

    def granted(self, wanted_records: int) -> int:
        """At most `wanted_records`; 0: none now."""
        ...

    def spent(self, records: int) -> None:
        """So many of them were read."""
        ...


class SpanSource:
    """`Source` of the records in `spans`, on a consumer that it owns from here on.

    Args:
        consumer: of the replay's own group, with `enable.partition.eof` and `auto.offset.reset=error`.
        topic: the input topic.
        spans: partition -> what to replay of it.
        committed: partition -> where its replay stands: the group's committed offset, or, where deletion may leave a gap, the
            oldest record behind it.
        allowance: asked before each poll.
        wait: sleeps for so many seconds; used while nothing may be read.
        headers: True keeps record headers.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        spans: Mapping[int, Span],
        committed: Mapping[int, int],
        allowance: Allowance,
        clock: Clock,
        wait: Callable[[float], None],
        headers: bool = False,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._spans = dict(spans)
        self._start = dict(committed)
        self._allowance = allowance
        self._clock = clock
        self._wait = wait
        self._headers = headers
        self._done: frozenset[int] = frozenset()
        self._places: dict[int, int] = {p: committed[p] for p in spans}  # how far each was read, for progress
        self._last: dict[int, Record] = {}
        self._held: dict[int, float] = {}
        self._paused = False

    @property
    def assigned(self) -> frozenset[int]:
        """See `Source.assigned`: all partitions of the replay, from start to end."""
        return frozenset(self._spans)

    @property
    def joined(self) -> bool:
        """See `Source.joined`. There is no group to join."""
        return True

    @property
    def held(self) -> frozenset[int]:
        """See `Source.held`."""
        return frozenset(self._held)

    @property
    def done(self) -> bool:
        """True once everything was read to its end. A rewind may take that back."""
        return self._done == self.assigned

    @property
    def left_offsets(self) -> int:
        """How many offsets lie between where each partition was read to and its end: at least as many as records."""
        return sum(max(0, span.next_offset - self._places[p]) for p, span in self._spans.items())

    def group_metadata(self) -> object:
        """Names the replay's group to a transaction. Nobody is a member of it."""
        return self._consumer.consumer_group_metadata()

    def subscribe(self, listener: Listener) -> None:
        """See `Source.subscribe`: starts reading."""
        self._begin(self._start)
        listener.on_assigned(self.assigned)

    def poll(self, max_records: int, timeout_s: float, *, eager: bool = True) -> Records:
        """See `Source.poll`."""
        self._resume_held()
        granted = 0 if self._paused or self.done else self._allowance.granted(max_records)
        if granted == 0:
            self._wait(min(timeout_s, BACKSTOP_S))
            return Records.of([], topic=self._topic)
        try:
            messages = self._consumer.consume(granted, 0.0 if eager else timeout_s)
            if not messages and eager and not self._at_ends():  # at the ends there is nothing to wait for
                messages = self._consumer.consume(1, timeout_s)
        except KafkaException as exception:
            raise fatal(exception.args[0]) from exception
        records = self._records([message for message in messages if message.error() is None])
        for message in messages:
            if (error := message.error()) is not None:
                self._heard(error, int(message.partition() or 0), int(message.offset() or 0))
        self._allowance.spent(len(records))
        if len(messages) < granted:
            self._at_ends()
        return records

    def rewind(self) -> None:
        """See `Source.rewind`. Assigning anew throws away what was fetched, and what librdkafka knew of the position."""
        places = [TopicPartition(self._topic, p) for p in sorted(self._spans)]
        try:
            committed = committed_of(self._consumer, places, COMMITTED_TIMEOUT_S, clock=self._clock, pause=self._wait)
        except KafkaException as exception:
            raise fatal(exception.args[0], "asking for the replay's offsets") from exception
        offsets: dict[int, int] = {}
        for place in committed:
            if place.offset is None or place.offset < 0:
                raise FatalDeliveryError(f"can't learn how far the replay is in partition {place.partition}: {place}")
            offsets[place.partition] = max(place.offset, self._start[place.partition])  # not back into a gap
        self._held.clear()
        self._begin(offsets)

    def hold(self, partition: int, offset: int, until_s: float) -> None:
        """See `Source.hold`."""
        place = TopicPartition(self._topic, partition, offset)
        self._consumer.pause([place])
        try:
            self._consumer.seek(place)
        except KafkaException as exception:
            raise fatal(exception.args[0], f"going back in partition {partition}") from exception
        self._held[partition] = until_s
        self._done -= {partition}
        self._places[partition] = offset

    def pause(self) -> None:
        """See `Source.pause`. Prefetched records stay in librdkafka's queue, which is bounded."""
        self._paused = True

    def resume(self) -> None:
        """See `Source.resume`."""
        self._paused = False

    def lags(self, now_ms: int) -> Sequence[Lag]:
        """See `Source.lags`: offsets to the span's end, and the age of the last record read."""
        lags = []
        for partition, span in sorted(self._spans.items()):
            last = self._last.get(partition)
            behind = max(0, span.next_offset - self._places[partition])
            known = last is not None and last.timestamp_ms >= 0 and behind > 0
            age_s = max(0, now_ms - last.timestamp_ms) / 1000 if known and last else 0.0
            lags.append(Lag(partition=partition, records=behind, seconds=age_s))
        return lags

    def close(self) -> None:
        """See `Source.close`."""
        self._consumer.close()

    def _begin(self, offsets: Mapping[int, int]) -> None:
        self._places = dict(offsets)
        self._done = frozenset(p for p, span in self._spans.items() if offsets[p] >= span.next_offset)
        places = [
            TopicPartition(self._topic, p, offset) for p, offset in sorted(offsets.items()) if p not in self._done
        ]
        self._consumer.assign(places)
        self._consumer.resume(places)  # a partition that was paused before stays so over an assignment

    def _records(self, messages: Sequence[Message]) -> Records:
        """Those of the span. What lies behind its end proves that the end was passed."""
        records = self._columns(messages)
        ends = np.zeros(1 + max(self._spans, default=0), np.int64)
        for partition in self.assigned - self._done:
            ends[partition] = self._spans[partition].next_offset
        wanted = records.offsets < ends[records.partitions]
        passed = np.unique(records.partitions[~wanted]).tolist()
        if passed:
            records = records.select(np.flatnonzero(wanted))
        for partition in np.unique(records.partitions).tolist():
            last = records[int(np.flatnonzero(records.partitions == partition)[-1])]
            self._last[partition] = replace(last, value=None)  # the value's memory isn't needed
            self._places[partition] = last.next_offset
        self._finish(passed)
        return records

    def _columns(self, messages: Sequence[Message]) -> Records:
        return Records(
            topic=self._topic,
            partitions=np.fromiter((m.partition() for m in messages), np.int32, len(messages)),
            offsets=np.fromiter((m.offset() for m in messages), np.int64, len(messages)),
            timestamps_ms=np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(messages)),
            keys=[m.key() for m in messages],
            values=[m.value() for m in messages],
            headers=[headers_of(m) for m in messages] if self._headers else None,
        )

    def _heard(self, error: KafkaError, partition: int, offset: int) -> None:
        """The broker's "end of partition" is taken note of; what can't heal by itself is raised."""
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes start so
            if partition not in self._held and offset >= self._spans[partition].next_offset:
                self._finish({partition})
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - see above
            raise ReplayStoppedError(
                f"{self._topic}[{partition}]: records of the span were deleted before they were replayed (retention, or by "
                f"hand): {error.str()}. What was replayed so far is committed; replay the rest with --allow-gaps"
            )
        else:
            check(error)

    def _at_ends(self) -> bool:
        """Take partitions whose end has been passed off the list. True if none is left."""
        open_ = sorted(self.assigned - self._done - self.held)
        for place in self._consumer.position([TopicPartition(self._topic, p) for p in open_]):
            if place.offset is not None and place.offset >= self._spans[place.partition].next_offset:
                self._finish({place.partition})
        return self.done

    def _finish(self, partitions: Iterable[int]) -> None:
        """These were read to their end: what lies behind it needn't be fetched."""
        new = frozenset(partitions) - self._done
        self._done |= new
        for partition in new:
            self._places[partition] = max(self._places[partition], self._spans[partition].next_offset)
        self._consumer.pause([TopicPartition(self._topic, partition) for partition in sorted(new)])

    def _resume_held(self) -> None:
        now_s = self._clock()
        due = [p for p, until_s in self._held.items() if until_s <= now_s]
        for partition in due:
            del self._held[partition]
        if due:
            self._consumer.resume([TopicPartition(self._topic, partition) for partition in due])
