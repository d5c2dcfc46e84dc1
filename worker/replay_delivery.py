"""A replay's `Delivery`: counts what is committed, keeps the counts with the offsets, and guards the live topic.

It stands between the pipeline and the `Transaction`. Counts become true with the commit: they are written in the same
transaction, as the note beside each offset, so that a killed replay goes on counting where its last commit was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from worker.deadline import Deadline
from worker.records import Positions
from worker.replay_book import Page, Totals
from worker.replay_fresher import AsOfReader, Fresher, Live
from worker.transaction import Delivery, Outgoing


class Table(Protocol):
    """The live topic as `LiveTable` follows it."""

    def look(self, deadline: Deadline) -> None:
        """See `LiveTable.look`."""
        ...

    def settle(self, deadline: Deadline) -> None:
        """See `LiveTable.settle`."""
        ...


class LiveGuard:
    """Lets through only what may be written to the live topic. See `replay_fresher.py`."""

    def __init__(self, table: Table, fresher: Fresher, as_of: AsOfReader, topic: str) -> None:
        self._table = table
        self._fresher = fresher
        self._as_of = as_of
        self._topic = topic

    def allowed(self, outgoing: Outgoing, deadline: Deadline) -> Outgoing:
        """Those messages of `outgoing` that may be written now."""
        self._table.look(deadline)
        chosen = [row for row in range(len(outgoing.values)) if self._allows(outgoing, row)]
        partitions, headers = outgoing.partitions, outgoing.headers
        return replace(
            outgoing,
            keys=[outgoing.keys[row] for row in chosen],
            values=[outgoing.values[row] for row in chosen],
            partitions=None if partitions is None else [partitions[row] for row in chosen],
            timestamps_ms=[outgoing.timestamps_ms[row] for row in chosen],
            headers=None if headers is None else [headers[row] for row in chosen],
        )

    def put_back(self, deadline: Deadline, *, settle: bool = False) -> Outgoing:
        """What live workers wrote and this replay buried, to be written again. `settle`: wait for what isn't visible yet."""
        (self._table.settle if settle else self._table.look)(deadline)
        found = self._fresher.buried()
        return Outgoing(
            topic=self._topic,
            keys=[key for key, _ in found],
            values=[live.value for _, live in found],
            partitions=[live.partition for _, live in found],
            timestamps_ms=[live.timestamp_ms for _, live in found],
            headers=[list(live.headers) for _, live in found],
        )

    def settled(self, *, committed: bool) -> None:
        """The open transaction ended."""
        self._fresher.settled(committed=committed)

    def _allows(self, outgoing: Outgoing, row: int) -> bool:
        key, value, timestamp_ms = outgoing.keys[row] or b"", outgoing.values[row], outgoing.timestamps_ms[row]
        as_of = None if value is None else self._as_of.read(value)
        if as_of is None:
            allowed = self._fresher.allows_withdrawal(key, timestamp_ms)
        else:
            allowed = self._fresher.allows(key, as_of)
        if allowed:
            self._fresher.produced(key, Live(as_of, timestamp_ms, -1, value))
        return allowed


class ReplayDelivery:
    """See the module.

    Args:
        inner: the transaction. It must take its notes from `note`, which is why it is given by `attach`.
        forecasts: the topic of the forecasts; whatever goes to another one is a dead letter.
        pages: partition -> its page.
        guard: with `--to-live`.
    """

    def __init__(self, *, forecasts: str, pages: Mapping[int, Page], guard: LiveGuard | None = None) -> None:
        self._inner: Delivery | None = None
        self._forecasts = forecasts
        self._pages = pages
        self._totals = self._next = self._pending = Totals()
        self._guard = guard

    def attach(self, inner: Delivery) -> None:
        """Give it its transaction."""
        self._inner = inner

    def begin(self, totals: Totals) -> None:
        """Count on from `totals`, those of the last commit."""
        self._totals = self._next = totals

    @property
    def totals(self) -> Totals:
        """What is committed, over all runs."""
        return self._totals

    @property
    def is_open(self) -> bool:
        """See `Delivery.is_open`. Counts that wait for their commit keep it open even if nothing was produced."""
        return self._delivery.is_open or self._pending != Totals()

    def note(self, partition: int) -> str:
        """What is kept with the offset of `partition` in the commit that is under way."""
        return self._pages[partition].with_totals(self._next).note()

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """See `Delivery.produce`."""
        if outgoing.topic != self._forecasts:
            self._pending = self._pending.plus(Totals(rejected=len(outgoing.values)))
        else:
            wanted = len(outgoing.values)
            if self._guard is not None:
                outgoing = self._guard.allowed(outgoing, deadline)
            withdrawn = sum(value is None for value in outgoing.values)
            rows = len(outgoing.values)
            self._pending = self._pending.plus(
                Totals(forecasts=rows - withdrawn, withdrawn=withdrawn, left_alone=wanted - rows)
            )
        if outgoing.values:
            self._delivery.produce(outgoing, deadline)

    def commit(self, positions: Positions, deadline: Deadline) -> None:
        """See `Delivery.commit`. What the records don't account for wasn't selected."""
        if self._guard is not None:
            self._put_back(self._guard.put_back(deadline), deadline)
        done = self._pending
        rest = positions.records - done.forecasts - done.withdrawn - done.rejected - done.left_alone
        self._next = self._totals.plus(done).plus(Totals(records=positions.records, not_selected=rest, commits=1))
        self._delivery.commit(positions, deadline)
        self._totals, self._pending = self._next, Totals()
        if self._guard is not None:
            self._guard.settled(committed=True)

    def abort(self, deadline: Deadline) -> None:
        """See `Delivery.abort`."""
        self._delivery.abort(deadline)
        self._pending = Totals()
        if self._guard is not None:
            self._guard.settled(committed=False)

    def settle(self, topic: str, deadline: Deadline) -> None:
        """After the last commit: put back what was buried under it, until nothing is. `topic`: the input's, as positions
        name it.
        """
        if self._guard is None:
            return
        while (outgoing := self._guard.put_back(deadline, settle=True)).values:
            self._put_back(outgoing, deadline)
            self.commit(Positions(topic, {}, 0), deadline)

    def close(self) -> None:
        """See `Delivery.close`."""
        self._delivery.close()

    @property
    def _delivery(self) -> Delivery:
        if self._inner is None:
            raise ValueError("no transaction was attached")
        return self._inner

    def _put_back(self, outgoing: Outgoing, deadline: Deadline) -> None:
        if outgoing.values:
            self._pending = self._pending.plus(Totals(put_back=len(outgoing.values)))
            self._delivery.produce(outgoing, deadline)
