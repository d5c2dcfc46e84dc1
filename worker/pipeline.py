"""From gathered rows to a commit: the half of the loop that submits, collects, publishes, commits, or discards it all.

Rules of this file:

- Results are collected in the order of submission, and positions follow one another without a gap.
- `discard` is the one place that throws work away: transaction, batches and rows together. Its caller rewinds the source.
- A slot goes batcher -> engine -> publisher -> engine; whoever fails on the way, it is released once.
- Forecasts of an engine that isn't trusted any more don't get committed: their transaction is aborted and read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from worker.batching import Batcher, CutReason, oldest_of
from worker.breaker import Breaker
from worker.commit_hold import CommitHold
from worker.deadline import Clock, Deadline
from worker.engine import Engine
from worker.errors import AbortableError, FatalDeliveryError, UnreachableError
from worker.flight import Flight
from worker.forecasting import Forecasting
from worker.freshness import Freshness
from worker.hotswap import EngineSlot
from worker.publish import Publisher, Routing, latencies_s
from worker.records import Positions
from worker.statistics import Stage, Tallies
from worker.transaction import Delivery

log = structlog.get_logger(__name__)

Probe = Callable[[str], None]
"""Called with the name of each point on the data's way. Tests stop the process there; else it does nothing."""

PROBES = (
    "polled",
    "decoded",
    "gathered",
    "submitted",
    "collected",
    "published",
    "before_commit",
    "after_commit",
    "revoked",
    "aborted",
)
"""The points, in the order of the data's way."""


class Pipeline:
    """Batcher, engines, publisher and delivery in a row. Owns none of them.

    Args:
        batcher: gathers rows; the loop adds to it, this class seals and drops.
        forecasting: runs batches and checks what comes out.
        publisher: produces finished batches into `delivery`.
        breaker: is told of what publishing rejects; what trips it isn't committed.
        delivery: commits them.
        routing: finds topics and partition counts; asked again after `reroute`.
        commit_interval_s: how long outputs wait for their commit at most, from the first one on.
        transaction_s: budget of each blocking call to Kafka.
        freshness: is told which keys were served.
        hold_s: how much longer they wait while the guard is unsure of a new version that made some of them.
    """

    def __init__(  # noqa: PLR0913 - everything is injected
        self,
        *,
        batcher: Batcher,
        forecasting: Forecasting,
        publisher: Publisher,
        breaker: Breaker,
        delivery: Delivery,
        routing: Callable[[], Routing],
        tallies: Tallies,
        commit_interval_s: float,
        transaction_s: float,
        clock: Clock,
        wall_clock_ms: Callable[[], int],
        probe: Probe = lambda _: None,
        freshness: Freshness | None = None,
        hold_s: float = 0.0,
    ) -> None:
        self._freshness = freshness or Freshness(window_s=1.0, max_keys=0)
        self._batcher = batcher
        self._forecasting = forecasting
        self._engine = forecasting.engine
        self._publisher = publisher
        self._breaker = breaker
        self._delivery = delivery
        self._find_routing = routing
        self._routing: Routing | None = None
        self._tallies = tallies
        self._commit_interval_s = commit_interval_s
        self._hold = CommitHold(hold_s, forecasting.is_unsure_of)
        self._transaction_s = transaction_s
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._probe = probe
        self._flights: deque[Flight] = deque()
        self._uncommitted: Positions | None = None
        self._uncommitted_by: list[Engine] = []
        self._uncommitted_ms: list[NDArray[np.int64]] = []
        self._commit_due_s = float("inf")
        self._commits = 0

    @property
    def commits(self) -> int:
        """How many commits succeeded."""
        return self._commits

    @property
    def busy(self) -> bool:
        """True while batches are with the engine."""
        return bool(self._flights)

    @property
    def commit_due_s(self) -> float:
        """When the open transaction is to be committed; infinite while there is none."""
        return self._commit_due_s + self._hold.longer_s(self._uncommitted_by)

    @property
    def freshness(self) -> Freshness:
        """Which keys were served when."""
        return self._freshness

    @property
    def oldest_unserved_ms(self) -> int | None:
        """Event time of the oldest event read and not committed; None if there is none, or none has a time."""
        batches_ms = [flight.batch.timestamps_ms for flight in self._flights]
        oldest_ms = (oldest_of([*self._uncommitted_ms, *batches_ms]), self._batcher.oldest_ms)
        return min((each for each in oldest_ms if each is not None), default=None)

    def reroute(self) -> None:
        """Ask for the topics' partition counts again before the next batch is published."""
        self._routing = None

    @property
    def engines(self) -> EngineSlot:
        """The engines, for those who report on them."""
        return self._forecasting.engines

    @property
    def held(self) -> str | None:
        """Why nothing may be computed now; None: all is well."""
        return self._forecasting.held

    def turn_over(self) -> None:
        """Between two batches: take up another engine that was handed over.

        Raises `AbortableError` when the version that served had to go at once: what it made and isn't committed goes too.
        """
        left = self._forecasting.turn_over(self._uses)
        if left is not None:
            raise AbortableError(left)
        if self._batcher.empty:  # also while nothing comes in
            self._forecasting.tend(self._flights)
        if self._batcher.slot is not None and self._batcher.empty and self._engine is not self._forecasting.engine:
            slot = self._batcher.drop()
            if slot is not None:
                self._engine.release(slot)

    def _uses(self, engine: Engine) -> bool:
        """Whether a batch, gathered or under way, holds a slot of `engine`, or a commit is ahead.

        Freeing an engine holds the loop up (docs/adr/0018), which had better not hit a commit, its longest step. So engines are
        given back behind one, or while the next is held until the guard is sure of a version.
        """
        is_held = self._commit_due_s <= self._clock() < self.commit_due_s
        if self._uncommitted is not None and not is_held:
            return True
        gathering = self._batcher.slot is not None and self._engine is engine
        return gathering or any(flight.uses(engine) for flight in self._flights)

    def open_slot(self) -> bool:
        """True if a slot is open for decoding, now or already; False while all are in use."""
        if self._batcher.slot is None:
            self._forecasting.tend(self._flights)
            engine = self._forecasting.engine
            slot = engine.acquire()
            if slot is None:
                return False
            self._engine = engine
            self._batcher.open(slot)
        return True

    def wait(self, timeout_s: float) -> bool:
        """True once the oldest batch can be published, False after `timeout_s`."""
        return self._flights[0].ready(timeout_s, self._clock)

    def submit(self, reason: CutReason) -> None:
        """Cut what was gathered, if anything, and hand it to the engine."""
        batch = self._batcher.seal(reason)
        if batch is None:
            return
        now_s = self._clock()
        self._tallies.batch(batch.rows, reason, batch.superseded)
        self._tallies.stage(Stage.QUEUE, now_s - batch.arrived_s)
        try:
            self._flights.append(self._forecasting.submit(batch, self._engine))
        except BaseException:
            if batch.slot is not None:
                self._engine.release(batch.slot)
            raise
        self._probe("submitted")

    def publish_finished(self) -> None:
        """Publish the batches that the engine has finished, oldest first. Doesn't wait for the others."""
        while self._flights and self.wait(0.0):
            self._publish_next()

    def commit_if_due(self) -> None:
        """Commit at the end of the interval. What was gathered is cut first: the engine computes while the commit waits."""
        if self._clock() >= self.commit_due_s:
            self.submit(CutReason.COMMIT)
            self._commit()

    def finish(self, reason: CutReason, deadline: Deadline) -> None:
        """Bring everything gathered to a commit.

        Raises `AbortableError` when the engine isn't done by `deadline`. A commit that began in time is waited for: its
        outcome must be known.
        """
        self.submit(reason)
        while self._flights:
            if not self.wait(deadline.remaining_s):
                raise AbortableError("the engine wasn't done within the budget")
            self._publish_next()
        self._commit()

    def discard(self) -> None:
        """Abort the transaction and drop all batches and rows. Their records must be read again."""
        if self._delivery.is_open:
            self._delivery.abort(self._deadline())
            self._tallies.transaction("aborted")
        while self._flights:
            self._flights.popleft().release()
        slot = self._batcher.drop()
        if slot is not None:
            self._engine.release(slot)
        self._settle()

    def _publish_next(self) -> None:
        """Collect and check the oldest flight, produce it, and take its positions into the transaction."""
        flight = self._flights.popleft()
        batch = flight.batch
        if self._uncommitted is None:
            self._commit_due_s = self._clock() + self._commit_interval_s
        try:
            checked = self._forecasting.checked(flight, self._flights)
            if any(self._forecasting.distrusts(engine) for engine in self._uncommitted_by):
                raise AbortableError("the open transaction holds forecasts of a version that was rolled back")
            self._probe("collected")
            rejections = self._publisher.publish(batch, checked, self._route(), self._deadline())
        finally:
            flight.release()
        if flight.computed is not None and flight.computed.engine not in self._uncommitted_by:
            self._uncommitted_by.append(flight.computed.engine)
        self._uncommitted = self._uncommitted.followed_by(batch.positions) if self._uncommitted else batch.positions
        self._uncommitted_ms.append(batch.timestamps_ms)
        self._freshness.published(batch)
        self._probe("published")
        if rejections and self._breaker.add(0, [rejection.reason for rejection in rejections]):
            raise AbortableError(f"breaker tripped: {self._breaker.tripped}")

    def _commit(self) -> None:
        if self._uncommitted is None:
            return
        began_s = self._clock()
        self._probe("before_commit")
        self._delivery.commit(self._uncommitted, self._deadline())
        self._commits += 1
        self._hold.committed(self._uncommitted_by)
        self._probe("after_commit")
        self._tallies.stage(Stage.COMMIT, self._clock() - began_s)
        self._tallies.transaction("committed")
        rows = sum(map(len, self._uncommitted_ms))
        self._tallies.end_to_end(latencies_s(self._uncommitted_ms, self._wall_clock_ms()), rows)
        self._freshness.committed(self._clock())
        self._settle()

    def _settle(self) -> None:
        self._freshness.discarded()
        self._uncommitted = None
        self._uncommitted_ms.clear()
        self._uncommitted_by.clear()
        self._commit_due_s = float("inf")

    def _deadline(self) -> Deadline:
        return Deadline.after(self._transaction_s, self._clock)

    def _route(self) -> Routing:
        if self._routing is None:
            try:
                self._routing = self._find_routing()
            except UnreachableError as error:
                # It was there at the start. If it is gone for good, the next start says so.
                raise FatalDeliveryError(f"asking where outputs go: {error}") from error
        return self._routing
