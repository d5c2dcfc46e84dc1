"""The worker: the data's way in `Worker.step`, and what happens when a rebalance, an error or a stop comes in between.

One thread. librdkafka fetches and sends in its own threads and an accelerator computes in its stream, so the loop hands
batch n + 1 over while n computes, and commits while the next one computes.

Rules of this file:

- `_abort` discards transaction, batches and rows together and rewinds the source; neither happens without the other.
- A rebalance comes inside `Source.poll`, when nothing of the loop's state is half-way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.batching import Batcher, CutReason
from worker.breaker import Breaker
from worker.catching_up import CatchingUp
from worker.deadline import Clock, Deadline
from worker.decode import Decoded, Decodes
from worker.errors import AbortableError, EngineError, ForecastWorkerError, SchemaUnavailableError
from worker.pipeline import Pipeline, Probe
from worker.records import Records
from worker.source import Source
from worker.statistics import Stage, Statistics, Tallies

log = structlog.get_logger(__name__)

BUSY_POLL_S = 0.001
"""How long a poll may wait while the engine computes; its result is looked at in between."""
SLOT_WAIT_S = 0.05
"""How long one step waits for a slot when all are in use."""
PAUSE_AFTER_S = 1.0
"""After so long without a free slot, fetching pauses, so that prefetched records don't pile up."""
LAG_EVERY_S = 1.0
"""How often lag is measured; it is a call per partition."""
FAILURES_IN_A_ROW = 5
"""So many aborts without a commit in between make the worker unready."""
SNAPSHOT_EVERY_S = 0.1
"""How often a snapshot of the statistics is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds."""

    poll_s: float
    revoke_budget_s: float
    schema_retry_s: float


class Worker:
    """Moves records from a source through an engine to a delivery. Owns none of them; `drain` leaves all at rest.

    `live`: events are to be served soon after their time. False: their age means nothing (a replay), and isn't told.
    """

    def __init__(  # noqa: PLR0913 - everything is injected
        self,
        *,
        source: Source,
        decoder: Decodes,
        batcher: Batcher,
        pipeline: Pipeline,
        breaker: Breaker,
        tallies: Tallies,
        timing: Timing,
        clock: Clock,
        wall_clock_ms: Callable[[], int],
        probe: Probe = lambda _: None,
        live: bool = True,
    ) -> None:
        self._source = source
        self._decoder = decoder
        self._batcher = batcher
        self._pipeline = pipeline
        self._breaker = breaker
        self._tallies = tallies
        self._timing = timing
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._probe = probe
        self._live = live
        self._catching_up = CatchingUp()
        self._starved_since_s: float | None = None
        self._paused = False
        self._joined = False
        self._waited_s = 0.0
        self._failures = self._commits_seen = 0
        self._last_failure = ""
        self._lag_due_s = self._snapshot_due_s = float("-inf")
        self._statistics = tallies.snapshot(clock())

    @property
    def statistics(self) -> Statistics:
        """The last snapshot: immutable, so any thread may read it."""
        return self._statistics

    @property
    def stuck(self) -> str | None:
        """Why it can't go on by itself: the breaker, or transactions that keep being aborted. None if it can."""
        if self._breaker.tripped is None and self._keeps_failing:
            return f"the last {self._failures} transactions were aborted, the last one because: {self._last_failure}"
        return self._breaker.tripped

    def start(self) -> None:
        """Join the group."""
        self._source.subscribe(self)

    def step(self) -> None:
        """One turn of the data's way. Blocks for about `Timing.poll_s` at most, and for a commit when one is due."""
        began_s = self._clock()
        self._waited_s = 0.0
        try:
            self._turn()
        except AbortableError as error:
            self._failed(error)
        self._tallies.step(self._clock() - began_s - self._waited_s, swapping=self._pipeline.engines.loading)
        self._report()

    def drain(self, deadline: Deadline) -> None:
        """Finish and commit everything polled so far, or, when that fails or time is up, rewind it."""
        self._finish(CutReason.STOP, deadline)
        self._lag_due_s = self._snapshot_due_s = float("-inf")  # the last snapshot tells all
        self._report()

    def abandon(self) -> None:
        """After an error that ends the process: abort what is open, so that readers don't wait for its time-out."""
        try:
            self._pipeline.discard()
        except ForecastWorkerError as error:
            log.warning("the open transaction is left to its time-out", reason=str(error))

    # -- rebalances: called by the source, inside poll ---------------------------------------------------------------

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """See `Listener.on_assigned`."""
        log.info("partitions assigned", partitions=sorted(partitions))
        self._tallies.rebalanced("assigned")
        self._joined = True
        self._pipeline.reroute()  # partitions may have been added

    def on_revoked(self, partitions: frozenset[int]) -> None:
        """See `Listener.on_revoked`: finish within the budget and commit, or drop and rewind."""
        log.info("partitions revoked", partitions=sorted(partitions))
        self._tallies.rebalanced("revoked")
        self._finish(CutReason.REVOKE, Deadline.after(self._timing.revoke_budget_s, self._clock))
        self._probe("revoked")

    def on_lost(self, partitions: frozenset[int]) -> None:
        """See `Listener.on_lost`: nothing of what is under way may be committed."""
        log.warning("partitions lost; what was under way is discarded", partitions=sorted(partitions))
        self._tallies.rebalanced("lost")
        self._abort()

    # -- the data's way ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._pipeline.turn_over()  # first: a quarantine comes before a commit that is due
        self._pipeline.publish_finished()
        self._pipeline.commit_if_due()
        if self._breaker.tripped is not None or self._pipeline.held is not None:
            self._fetch(wanted=False)
            self._source.poll(0, self._timing.poll_s)
        elif self._pipeline.open_slot():
            self._starved_since_s = None
            self._fetch(wanted=True)
            asked = self._batcher.room
            self._take(self._poll(), asked)
        else:
            self._wait_for_slot()

    def _poll(self) -> Records:
        began_s = self._clock()
        records = self._source.poll(self._batcher.room, self._poll_wait_s(began_s), eager=self._batcher.empty)
        now_s = self._clock()
        self._waited_s = now_s - began_s if len(records) == 0 else 0.0
        self._tallies.stage(Stage.POLL, now_s - began_s)
        self._tallies.polled(len(records), now_s)
        self._probe("polled")
        return records

    def _take(self, records: Records, asked: int) -> None:
        """Decode one poll into the open slot, and cut the batch if it is time.

        A poll that brought all that was `asked` for left more behind it: catching up, a full batch drops what it can, and
        goes on.
        """
        more = len(records) >= asked
        if len(records):
            if not self._pipeline.open_slot():  # a rebalance inside the poll gave it away, and freed all others
                raise EngineError("no free slot after a rebalance")
            records, decoded = self._decode(records)
            if self._breaker.add(len(records), [rejection.reason for _, rejection in decoded.rejections]):
                raise AbortableError(f"breaker tripped: {self._breaker.tripped}")
            self._batcher.add(records, decoded, self._clock())
            self._probe("gathered")
        goes_on = more and self._batcher.room <= 0 and self._batcher.make_room()
        reason = self._batcher.cut(self._clock(), engine_idle=not self._pipeline.busy and not goes_on)
        if reason is not None:
            self._pipeline.submit(reason)

    def _decode(self, records: Records) -> tuple[Records, Decoded]:
        """The records that could be decoded now. Those whose schema can't be had wait, with all behind them."""
        slot = self._batcher.slot
        assert slot is not None  # noqa: S101 - _take has just opened one
        began_s = self._clock()
        while True:
            try:
                decoded = self._decoder.decode(records, slot.columns, self._batcher.rows)
            except SchemaUnavailableError as error:
                records = self._hold(records, error)
            else:
                self._tallies.stage(Stage.DECODE, self._clock() - began_s)
                self._probe("decoded")
                return records, decoded

    def _hold(self, records: Records, error: SchemaUnavailableError) -> Records:
        first: dict[int, int] = {}
        for index in sorted(error.indices):
            first.setdefault(int(records.partitions[index]), index)
        until_s = self._clock() + self._timing.schema_retry_s
        for partition, index in first.items():
            self._source.hold(partition, records[index].offset, until_s)
        log.warning("waiting for a writer schema", partitions=sorted(first), reason=str(error))
        partitions = records.partitions.tolist()
        return records.select([i for i, p in enumerate(partitions) if p not in first or i < first[p]])

    def _finish(self, reason: CutReason, deadline: Deadline) -> None:
        try:
            self._pipeline.finish(reason, deadline)
        except AbortableError as error:
            self._failed(error)

    def _failed(self, error: AbortableError) -> None:
        """Abort, and remember what keeps happening: records that can never be sent must not look like work."""
        log.warning("transaction aborted; its records are read again", reason=str(error))
        if self._pipeline.commits > self._commits_seen:
            self._failures = 0
        self._commits_seen = self._pipeline.commits
        self._failures += 1
        self._last_failure = str(error)
        self._abort()

    def _abort(self) -> None:
        """Discard transaction, batches and rows, all of them, and read their records again."""
        self._pipeline.discard()
        self._source.rewind()
        self._breaker.forget()
        self._probe("aborted")

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _poll_wait_s(self, now_s: float) -> float:
        if self._pipeline.busy:
            return BUSY_POLL_S
        due_in_s = self._batcher.due_in_s(now_s, engine_idle=True)
        waits_s = (self._timing.poll_s, due_in_s, self._pipeline.commit_due_s - now_s)
        return max(0.0, min(wait_s for wait_s in waits_s if wait_s is not None))

    def _wait_for_slot(self) -> None:
        """All slots are in use: wait for the oldest batch, and stop fetching when that lasts."""
        now_s = self._clock()
        self._starved_since_s = now_s if self._starved_since_s is None else self._starved_since_s
        if not self._pipeline.wait(SLOT_WAIT_S):
            if now_s - self._starved_since_s >= PAUSE_AFTER_S:
                self._fetch(wanted=False)
            if self._paused:
                self._source.poll(0, 0.0)

    def _fetch(self, *, wanted: bool) -> None:
        if wanted and self._paused:
            self._source.resume()
        elif not wanted and not self._paused:
            self._source.pause()
        self._paused = not wanted

    # -- what others see ---------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Measure lag, and make a snapshot of everything, both now and then."""
        now_s = self._clock()
        if now_s >= self._lag_due_s:
            self._lag_due_s = now_s + LAG_EVERY_S
            self._tallies.assigned(self._source.assigned)
            lags = self._source.lags(self._wall_clock_ms())
            for lag in lags:
                self._tallies.lag(lag.partition, lag.records, lag.seconds)
            if self._live:
                self._look_at_freshness(max((lag.seconds for lag in lags), default=0.0), now_s)
        if now_s >= self._snapshot_due_s:
            self._snapshot_due_s = now_s + SNAPSHOT_EVERY_S
            self._tallies.not_ready(self._reasons())
            engines = self._pipeline.engines
            self._tallies.models(engines.status)
            self._tallies.engine(engines.serving.spec)
            self._tallies.backup(None if engines.backup is None else engines.backup.spec)
            self._statistics = self._tallies.snapshot(now_s)

    def _look_at_freshness(self, unread_s: float, now_s: float) -> None:
        """`unread_s`: age of the last record read of a partition that has more. What is under way may be older."""
        oldest_ms = self._pipeline.oldest_unserved_ms
        under_way_s = 0.0 if oldest_ms is None else max(0.0, (self._wall_clock_ms() - oldest_ms) / 1000)
        oldest_s = max(unread_s, under_way_s)
        self._pipeline.freshness.keep(self._source.assigned)
        self._tallies.freshness(oldest_s, self._pipeline.freshness.keys(now_s))
        caught_up = self._catching_up.look(oldest_s, *self._tallies.read, now_s)
        if caught_up is not None:
            log.info(
                "caught up",
                records=caught_up.records,
                superseded=caught_up.superseded,
                seconds=round(caught_up.seconds, 1),
                oldest_s=round(caught_up.oldest_s, 1),
            )

    def _reasons(self) -> list[str]:
        """Why this worker isn't ready; empty if it is."""
        reasons = []
        self._joined = self._joined or self._source.joined
        if not self._joined:
            reasons.append("the consumer group hasn't assigned partitions yet")
        if self.stuck is not None:
            reasons.append(self.stuck)
        if self._pipeline.held is not None:
            reasons.append(self._pipeline.held)
        if self._source.held:
            reasons.append(
                f"partitions {sorted(self._source.held)} wait for a writer schema; is the registry reachable?"
            )
        return reasons

    @property
    def _keeps_failing(self) -> bool:
        return self._failures >= FAILURES_IN_A_ROW and self._pipeline.commits == self._commits_seen
