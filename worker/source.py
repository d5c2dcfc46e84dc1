"""Where records come from: subscribe, poll, hold, rewind. Assignments are values; confluent_kafka stays in here.

Rules of this file:

- A poll returns records of partitions that are assigned *now*, in offset order, and nothing that a rewind made stale.
  `consume` may gather messages, then serve a rebalance, then return: so what it returns is checked against the assignment
  after the call, and thrown away whole if a rewind happened within it.
- Nobody asks the consumer for its position: that counts what was polled. Positions come from sealed batches.
- Rebalances reach the listener inside `poll`. What the listener raises leaves `poll`, after librdkafka is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.asking import committed_of
from worker.deadline import Clock
from worker.errors import FatalDeliveryError
from worker.headers import HeadersOnDemand
from worker.records import Record, Records
from worker.source_errors import check, fatal

log = structlog.get_logger(__name__)

SEEK_TIMEOUT_S = 10.0


class Listener(Protocol):
    """Who is told of rebalances, inside `Source.poll`."""

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """These partitions came in addition to those held."""
        ...

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """These partitions go when this returns; until then their work may still be committed."""
        ...

    def on_lost(self, partitions: frozenset[int]) -> None:
        """These partitions are someone else's already; nothing of them may be committed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far behind one partition is: records not polled yet, and the age in seconds of the last one polled."""

    partition: int
    records: int
    seconds: float


class Source(Protocol):
    """A topic's records for one member of a group. Real: `KafkaSource`. All calls from the loop's thread."""

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions held now."""
        ...

    @property
    def joined(self) -> bool:
        """True once the group has taken this member in, if only as a stand-by without partitions."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Join the group."""
        ...

    def poll(self, max_records: int, timeout_s: float, *, eager: bool = True) -> Records:
        """Up to `max_records` records; maybe none after `timeout_s`. With `max_records` 0, only serves rebalances.

        Eager: returns as soon as there is any record. Else it waits for `max_records` until `timeout_s` is over.
        """
        ...

    def rewind(self) -> None:
        """Read everything again that was polled and isn't committed. Inside `poll`, it takes effect as `poll` returns."""
        ...

    def hold(self, partition: int, offset: int, until_s: float) -> None:
        """Read `partition` from `offset` on again, but not before the clock shows `until_s`."""
        ...

    def pause(self) -> None:
        """Fetch nothing more of any partition, assigned now or later, until `resume`. `poll` stays due."""
        ...

    def resume(self) -> None:
        """End `pause`."""
        ...

    @property
    def held(self) -> frozenset[int]:
        """The partitions that wait by `hold`."""
        ...

    def lags(self, now_ms: int) -> Sequence[Lag]:
        """Lag per assigned partition, from what is known locally. `now_ms`: wall clock."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class KafkaSource:
    """`Source` on a confluent_kafka consumer, which it owns from here on.

    Args:
        consumer: with auto-commit and auto-offset-store off.
        topic: the input topic.
        clock: monotonic. wait: for that many seconds, before a question is asked again.
    """

    def __init__(
        self, consumer: Consumer, topic: str, *, clock: Clock, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._clock = clock
        self._wait = wait
        self._assigned: frozenset[int] = frozenset()
        self._first: dict[int, int] = {}  # partition -> first offset polled since it was assigned
        self._last: dict[int, Record] = {}  # partition -> the last record polled
        self._held: dict[int, float] = {}
        self._paused = False
        self._came: frozenset[int] = frozenset()  # in this poll: pausing and resuming work only after the callback
        self._muted: frozenset[int] = frozenset()  # went while paused or held: librdkafka keeps them paused
        self._polling = False
        self._stale = False
        self._gone: frozenset[int] = frozenset()  # went away during this poll, maybe to come back within it
        self._failure: BaseException | None = None
        self._outside: object = None  # the group metadata of one who hasn't joined

    @property
    def assigned(self) -> frozenset[int]:
        """See `Source.assigned`."""
        return self._assigned

    @property
    def held(self) -> frozenset[int]:
        """See `Source.held`."""
        return frozenset(self._held)

    @property
    def joined(self) -> bool:
        """See `Source.joined`. Under KIP-848 nobody calls a stand-by back, but its metadata change when it is taken in."""
        return bool(self._assigned) or self._outside not in {None, self.group_metadata()}

    def group_metadata(self) -> object:
        """What ties a transaction to this member's generation of the group."""
        return self._consumer.consumer_group_metadata()

    def subscribe(self, listener: Listener) -> None:
        """See `Source.subscribe`."""

        def on_assign(partitions: frozenset[int]) -> None:
            self._assigned |= partitions
            self._came |= partitions
            listener.on_assigned(partitions)

        def on_revoke(partitions: frozenset[int]) -> None:
            listener.on_revoked(partitions)
            self._forget(partitions)

        def on_lost(partitions: frozenset[int]) -> None:
            self._forget(partitions)
            listener.on_lost(partitions)

        def told(tell: Callable[[frozenset[int]], None]) -> Callable[[Consumer, list[TopicPartition]], None]:
            def callback(_: Consumer, places: list[TopicPartition]) -> None:
                try:
                    tell(frozenset(place.partition for place in places))
                except BaseException as failure:  # noqa: BLE001 - raised again when librdkafka is done
                    self._failure = self._failure or failure

            return callback

        self._outside = self.group_metadata()
        self._consumer.subscribe(
            [self._topic], on_assign=told(on_assign), on_revoke=told(on_revoke), on_lost=told(on_lost)
        )

    def poll(self, max_records: int, timeout_s: float, *, eager: bool = True) -> Records:
        """See `Source.poll`."""
        self._resume_held()
        self._gone = frozenset()
        self._polling = True
        try:
            messages = self._consume(max_records, timeout_s, eager=eager) if max_records else self._serve(timeout_s)
        except KafkaException as exception:
            raise fatal(exception.args[0]) from exception
        finally:
            self._polling = False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._welcome(self._came & self._assigned)
        return self._records(self._settled(messages) if self._stale or self._gone else messages)

    def rewind(self) -> None:
        """See `Source.rewind`."""
        if self._polling:
            self._stale = True
        else:
            self._seek_back(self._assigned)

    def hold(self, partition: int, offset: int, until_s: float) -> None:
        """See `Source.hold`."""
        place = TopicPartition(self._topic, partition, offset)
        self._consumer.pause([place])
        self._seek(place)
        self._held[partition] = until_s

    def pause(self) -> None:
        """See `Source.pause`."""
        self._paused = True
        self._consumer.pause(self._places(self._assigned))

    def resume(self) -> None:
        """See `Source.resume`."""
        self._paused = False
        self._consumer.resume(self._places(self._assigned - self.held))

    def lags(self, now_ms: int) -> Sequence[Lag]:
        """See `Source.lags`."""
        lags = []
        for partition in sorted(self._assigned & self._last.keys()):
            last = self._last[partition]
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            behind = max(0, high - last.next_offset)
            age_s = max(0, now_ms - last.timestamp_ms) / 1000 if behind and last.timestamp_ms >= 0 else 0.0
            lags.append(Lag(partition=partition, records=behind, seconds=age_s))
        return lags

    def close(self) -> None:
        """See `Source.close`."""
        self._polling = True  # a rewind in the last rebalance would only wait, for a group that is being left
        self._consumer.close()

    def _consume(self, max_records: int, timeout_s: float, *, eager: bool) -> list[Message]:
        first = self._consumer.consume(max_records, 0.0 if eager else timeout_s)
        return first or (self._consumer.consume(1, timeout_s) if eager else [])

    def _serve(self, timeout_s: float) -> list[Message]:
        """Serve rebalances while everything is paused. A message that still slips through is read again."""
        message = self._consumer.poll(timeout_s)
        if message is None or message.error() is not None:
            return [] if message is None else [message]
        self._seek(TopicPartition(self._topic, int(message.partition() or 0), int(message.offset() or 0)))
        return []

    def _records(self, messages: list[Message]) -> Records:
        assigned = self._assigned
        for message in messages:
            if (error := message.error()) is not None:
                check(error)
        kept = [m for m in messages if m.error() is None and m.partition() in assigned]
        records = Records(
            topic=self._topic,
            partitions=np.fromiter((m.partition() for m in kept), np.int32, len(kept)),
            offsets=np.fromiter((m.offset() for m in kept), np.int64, len(kept)),
            timestamps_ms=np.fromiter((m.timestamp()[1] for m in kept), np.int64, len(kept)),
            keys=[m.key() for m in kept],
            values=[m.value() for m in kept],
            headers=HeadersOnDemand(kept),
        )
        for partition in np.unique(records.partitions).tolist():
            indices = np.flatnonzero(records.partitions == partition)
            self._first.setdefault(partition, int(records.offsets[indices[0]]))
            # The value's memory isn't needed.
            self._last[partition] = replace(records[int(indices[-1])], value=None, headers=())
        return records

    def _settled(self, messages: list[Message]) -> list[Message]:
        """Drop what a rewind or a rebalance within this poll made stale, and read it again.

        That is everything after a rewind; else all of partitions that went and came back: some of it may have been
        fetched before, some after. What is dropped counts as polled, else nothing would seek back to it.
        """
        again = self._assigned if self._stale else self._gone & self._assigned
        polled = again - self._gone  # seeking in a partition that came back and brought nothing yet might be too early
        for message in messages:
            if message.error() is None and message.partition() in again:
                partition, offset = int(message.partition() or 0), int(message.offset() or 0)
                self._first[partition] = min(self._first.get(partition, offset), offset)
                polled |= {partition}
        self._stale = False
        self._first = {partition: offset for partition, offset in self._first.items() if partition in self._assigned}
        self._seek_back(polled)
        return [m for m in messages if m.error() is not None or m.partition() not in again]

    def _seek_back(self, partitions: frozenset[int]) -> None:
        """To the committed offset, or where reading began if nothing was committed, of those that were polled from."""
        polled = sorted(p for p in partitions if p in self._first)
        if not polled:
            return
        try:
            asked = self._places(polled)
            committed = committed_of(self._consumer, asked, SEEK_TIMEOUT_S, clock=self._clock, pause=self._wait)
        except KafkaException as exception:
            raise fatal(exception.args[0], f"asking for committed offsets of {self._topic}{polled}") from exception
        for partition, place in zip(polled, committed, strict=True):
            offset = self._first[partition] if place.offset is None or place.offset < 0 else place.offset
            self._seek(TopicPartition(self._topic, partition, offset))
        log.info("rewound", partitions=polled)

    def _seek(self, place: TopicPartition) -> None:
        try:
            self._consumer.seek(place)
        except KafkaException as exception:
            if place.partition in self._assigned:
                raise FatalDeliveryError(f"can't rewind {place.topic}[{place.partition}]: {exception}") from exception

    def _welcome(self, came: frozenset[int]) -> None:
        """Pause or resume new partitions as all others are."""
        if self._paused and came:
            self._consumer.pause(self._places(came))
        elif came & self._muted:
            self._consumer.resume(self._places(came & self._muted))
        self._muted -= came
        self._came = frozenset()

    def _forget(self, partitions: frozenset[int]) -> None:
        self._muted |= partitions if self._paused else partitions & self.held
        self._assigned -= partitions
        self._gone |= partitions
        for partition in partitions:  # `_first` goes when the poll ends: the partition may come back within it
            self._last.pop(partition, None)
            self._held.pop(partition, None)

    def _resume_held(self) -> None:
        now_s = self._clock()
        due = [p for p, until_s in self._held.items() if until_s <= now_s]
        for partition in due:
            del self._held[partition]
        if due and not self._paused:
            self._consumer.resume(self._places(due))

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
