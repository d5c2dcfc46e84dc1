"""A topic, a group member and transactions in memory: what the loop's tests run against, held to the same contract
as Kafka by tests/contract. Rebalances and failures are injected, so that every order of things can be tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from worker.deadline import Clock, Deadline
from worker.errors import AbortableError, DeliveryError, FatalDeliveryError
from worker.records import Header, Positions, Record, Records
from worker.source import Lag, Listener
from worker.transaction import Outgoing


@dataclass(frozen=True)
class Published:
    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    timestamp_ms: int
    headers: Sequence[Header] = ()


@dataclass
class MemoryBroker:
    """Survives its clients, as a broker does."""

    partitions: int
    topic: str = "in"
    log: dict[int, list[Record]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)
    commits: int = 0
    max_message_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        self.log = {partition: [] for partition in range(self.partitions)}

    def append(
        self, partition: int, key: bytes | None, value: bytes | None, *, skip: int = 0, timestamp_ms: int = 0
    ) -> Record:
        """Add a record, `skip` offsets after the last one (as after a transaction marker or compaction)."""
        last = self.log[partition][-1].next_offset if self.log[partition] else 0
        record = Record(
            topic=self.topic, partition=partition, offset=last + skip, timestamp_ms=timestamp_ms, key=key, value=value
        )
        self.log[partition].append(record)
        return record

    def records(self) -> list[Record]:
        return [record for partition in self.log.values() for record in partition]


class MemorySource:
    """`Source` on a `MemoryBroker`. Rebalances that were asked for happen inside the next poll, as Kafka's do."""

    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._assigned: frozenset[int] = frozenset()
        self._next: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self._last: dict[int, Record] = {}
        self._held: dict[int, float] = {}
        self._joined = False
        self._paused = False
        self._polling = False
        self._stale = False
        self._gone: frozenset[int] = frozenset()
        self._listener: Listener | None = None
        self._rebalances: list[Callable[[], None]] = []
        self.empty_polls = 0

    @property
    def assigned(self) -> frozenset[int]:
        return self._assigned

    @property
    def held(self) -> frozenset[int]:
        return frozenset(self._held)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def joined(self) -> bool:
        return self._joined

    def subscribe(self, listener: Listener) -> None:
        self._listener = listener

    def assign(self, *partitions: int) -> None:
        def rebalance() -> None:
            self._joined = True
            new = frozenset(partitions) - self._assigned
            self._assigned |= new
            for partition in new:
                self._next[partition] = self._broker.committed.get(partition, 0)
            if self._listener:
                self._listener.on_assigned(new)

        self._rebalances.append(rebalance)

    def revoke(self, *partitions: int) -> None:
        def rebalance() -> None:
            gone = frozenset(partitions) & self._assigned
            if self._listener:
                self._listener.on_revoked(gone)
            self._forget(gone)

        self._rebalances.append(rebalance)

    def lose(self, *partitions: int) -> None:
        def rebalance() -> None:
            gone = frozenset(partitions) & self._assigned
            self._forget(gone)
            if self._listener:
                self._listener.on_lost(gone)

        self._rebalances.append(rebalance)

    def poll(self, max_records: int, timeout_s: float, *, eager: bool = True) -> Records:  # noqa: ARG002
        now_s = self._clock()
        self._held = {partition: until_s for partition, until_s in self._held.items() if until_s > now_s}
        early = self._fetch(max_records // 2)  # fetched before the rebalance is served, as consume() may do
        self._polling, self._gone = True, frozenset()
        while self._rebalances:
            self._rebalances.pop(0)()
        self._polling = False
        early = [record for record in early if record.partition not in self._gone]
        if self._stale:
            self._stale = False
            for record in early:
                if record.partition in self._assigned:
                    self._first.setdefault(record.partition, record.offset)
            self._seek_back()
            return Records.of([], topic=self._broker.topic)
        late = self._fetch(max_records - len(early))
        records = [record for record in [*early, *late] if record.partition in self._assigned]
        for record in records:
            self._first.setdefault(record.partition, record.offset)
            self._last[record.partition] = record
        self.empty_polls = 0 if records else self.empty_polls + 1
        return Records.of(records, topic=self._broker.topic)

    def rewind(self) -> None:
        if self._polling:
            self._stale = True
        else:
            self._seek_back()

    def hold(self, partition: int, offset: int, until_s: float) -> None:
        self._next[partition] = offset
        self._held[partition] = until_s

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lags(self, now_ms: int) -> Sequence[Lag]:
        lags = []
        for partition in sorted(self._assigned & self._last.keys()):
            last = self._last[partition]
            behind = sum(record.offset >= last.next_offset for record in self._broker.log[partition])
            age_s = (now_ms - last.timestamp_ms) / 1000 if behind else 0.0
            lags.append(Lag(partition=partition, records=behind, seconds=age_s))
        return lags

    def close(self) -> None:
        self.revoke(*self._assigned)
        self.poll(0, 0.0)

    def _fetch(self, count: int) -> list[Record]:
        fetched: list[Record] = []
        if self._paused:
            return fetched
        for partition in sorted(self._assigned - self.held):
            waiting = [r for r in self._broker.log[partition] if r.offset >= self._next[partition]]
            taken = waiting[: count - len(fetched)]
            if taken:
                self._next[partition] = taken[-1].next_offset
            fetched += taken
        return fetched

    def _seek_back(self) -> None:
        for partition in self._assigned & self._first.keys():
            self._next[partition] = self._broker.committed.get(partition, self._first[partition])

    def _forget(self, partitions: frozenset[int]) -> None:
        self._assigned -= partitions
        self._gone |= partitions
        for partition in partitions:
            self._first.pop(partition, None)
            self._last.pop(partition, None)
            self._held.pop(partition, None)
            self._next.pop(partition, None)


class MemoryDelivery:
    """`Delivery` with transactions on a `MemoryBroker`. `fail_next[call]` is raised by the next call of that name."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._pending: list[Published] = []
        self._open = False
        self._broken = False
        self.fail_next: dict[str, DeliveryError] = {}
        self.aborted = 0

    @property
    def is_open(self) -> bool:
        return self._open

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:  # noqa: ARG002
        assert not self._broken, "a broken transaction must be aborted first"
        self._open = True
        count = len(outgoing.values)
        assert len(outgoing.keys) == len(outgoing.timestamps_ms) == count
        for row in range(count):
            if row == count // 2:
                self._fail("produce")
            if len(outgoing.keys[row] or b"") + len(outgoing.values[row] or b"") > self._broker.max_message_bytes:
                raise FatalDeliveryError(f"producing to {outgoing.topic}: a message is too large, as librdkafka says")
            self._pending.append(
                Published(
                    outgoing.topic,
                    outgoing.keys[row],
                    outgoing.values[row],
                    None if outgoing.partitions is None else outgoing.partitions[row],
                    outgoing.timestamps_ms[row],
                    () if outgoing.headers is None else tuple(outgoing.headers[row]),
                )
            )

    def commit(self, positions: Positions, deadline: Deadline) -> None:  # noqa: ARG002
        assert not self._broken, "a broken transaction must be aborted first"
        self._open = True
        self._fail("commit")
        for partition, span in positions.spans.items():
            expected = self._broker.committed.get(partition, 0)
            skipped = [r for r in self._broker.log[partition] if expected <= r.offset < span.first_offset]
            assert not skipped, f"positions of partition {partition} leave a gap: {skipped}"
            assert span.first_offset >= expected, f"partition {partition} is committed twice from {span.first_offset}"
            self._broker.committed[partition] = span.next_offset
        self._broker.published += self._pending
        self._broker.commits += 1
        self._reset()

    def abort(self, deadline: Deadline) -> None:  # noqa: ARG002
        self.aborted += self._open
        self._reset()

    def close(self) -> None:
        self._reset()

    def _fail(self, call: str) -> None:
        error = self.fail_next.pop(call, None)
        if error is not None:
            self._broken = isinstance(error, AbortableError)
            raise error

    def _reset(self) -> None:
        self._pending = []
        self._open = self._broken = False
