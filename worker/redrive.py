"""Sends dead letters' records to the input topic again: each once, wherever the process is killed.

Records and the ledger's entries for them share a transaction. Whoever starts has the transactional.id to himself (a
second redrive fences the first), settles what a killed one left open, and only then reads the ledger: so a letter that
isn't in it wasn't redriven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from worker.dead_letters import Letter, obstacle, redriven_headers, redriven_timestamp_ms
from worker.deadline import Clock, Deadline
from worker.errors import AbortableError
from worker.ledger import Ledger, entry
from worker.transaction import Outgoing

CHUNK_LETTERS = 500
CHUNK_BYTES = 8 << 20
MAX_TRIES = 5


class Outbox(Protocol):
    """What a redrive asks of `Transaction`."""

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """See `Delivery.produce`."""
        ...

    def commit_outputs(self, deadline: Deadline) -> None:
        """See `Transaction.commit_outputs`."""
        ...

    def abort(self, deadline: Deadline) -> None:
        """See `Delivery.abort`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where records go. retention_ms: after which age the topic deletes records, None for never or not known.

    max_attempts: records redriven so often already stay where they are; None: never mind.
    """

    topic: str
    partitions: int
    retention_ms: int | None
    ledger_topic: str
    max_attempts: int | None


@dataclass(slots=True, kw_only=True)
class Redriven:
    """What became of the letters that were meant. `left`: why a letter was left alone -> the letters, first ones only."""

    redriven: int = 0
    already: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    left: list[tuple[Letter, str]] = field(default_factory=list)


class Redrive:
    """One run of `dead-letters redrive`.

    Args:
        outbox: transactions; fenced everyone else when it was made.
        ledger: read after the outbox was made. New entries are added as they are committed.
        target: where to, and what may go there.
        timeout_s: for one transaction.
        clock, wall_clock_ms: monotonic seconds; milliseconds since 1970.
        probe: told the name of each step that is done; for tests that kill the process there.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        ledger: Ledger,
        target: Target,
        timeout_s: float,
        clock: Clock,
        wall_clock_ms: Callable[[], int],
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._target = target
        self._timeout_s = timeout_s
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._probe = probe

    def run(self, letters: Iterable[Letter], *, limit: int | None = None) -> Redriven:
        """Redrive `letters`, `limit` of them at most. Raises `DeliveryError`; what was committed by then stays so."""
        outcome = Redriven()
        for chunk in _chunks(self._sendable(letters, outcome, limit)):
            self._send(chunk)
            for letter in chunk:
                self._ledger.add(letter)
                outcome.reasons[letter.reason] += 1
            outcome.redriven += len(chunk)
        return outcome

    def _sendable(self, letters: Iterable[Letter], outcome: Redriven, limit: int | None) -> Iterator[Letter]:
        sent = 0
        target = self._target
        for letter in letters:
            if limit is not None and sent >= limit:
                return
            if letter in self._ledger:
                outcome.already += 1
                continue
            why = obstacle(letter, topic=target.topic, partitions=target.partitions, max_attempts=target.max_attempts)
            if why is None:
                sent += 1
                yield letter
            else:
                outcome.refused += 1
                if len(outcome.left) < 20:
                    outcome.left.append((letter, why))

    def _send(self, chunk: Sequence[Letter]) -> None:
        """One transaction, tried again if it was aborted."""
        for attempt in range(1, MAX_TRIES + 1):
            deadline = Deadline.after(self._timeout_s, self._clock)
            try:
                self._produce(chunk, deadline)
                self._outbox.commit_outputs(deadline)
            except AbortableError:
                self._outbox.abort(Deadline.after(self._timeout_s, self._clock))
                if attempt == MAX_TRIES:
                    raise
            else:
                self._probe("committed")
                return

    def _produce(self, chunk: Sequence[Letter], deadline: Deadline) -> None:
        now_ms = self._wall_clock_ms()
        times_ms = [
            redriven_timestamp_ms(letter, now_ms=now_ms, retention_ms=self._target.retention_ms) for letter in chunk
        ]
        records = Outgoing(
            topic=self._target.topic,
            keys=[letter.key for letter in chunk],
            values=[letter.value for letter in chunk],
            partitions=[letter.source.partition for letter in chunk],
            timestamps_ms=times_ms,
            headers=[redriven_headers(letter, at_ms) for letter, at_ms in zip(chunk, times_ms, strict=True)],
        )
        self._outbox.produce(records, deadline)
        self._probe("produced")
        entries = [entry(letter, redriven_at_ms=now_ms) for letter in chunk]
        self._outbox.produce(
            Outgoing(
                topic=self._target.ledger_topic,
                keys=[key for key, _ in entries],
                values=[value for _, value in entries],
                partitions=None,
                timestamps_ms=[now_ms] * len(entries),
            ),
            deadline,
        )
        self._probe("noted")


def _chunks(letters: Iterator[Letter]) -> Iterator[list[Letter]]:
    """In order, each as many letters and bytes as a transaction takes."""
    chunk: list[Letter] = []
    size_bytes = 0
    for letter in letters:
        letter_bytes = len(letter.value or b"") + len(letter.key or b"")
        if chunk and (len(chunk) == CHUNK_LETTERS or size_bytes + letter_bytes > CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(letter)
        size_bytes += letter_bytes
    if chunk:
        yield chunk
