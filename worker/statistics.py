"""What the worker has done, counted: tallies that the loop thread adds to, and frozen snapshots that others read.

`Tallies` has no locks because one thread owns it. Other threads see only what `snapshot` returned: values that never
change. Adding costs well under a microsecond, a snapshot well under 200.                                        (pure)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from worker.engine import EngineSpec
from worker.freshness import FreshKeys
from worker.guard import Rule
from worker.model_status import ModelStatus
from worker.records import Reason

ROW_BOUNDS: tuple[float, ...] = tuple(float(1 << power) for power in range(17))
"""Batch sizes, rows: 1, 2, 4 … 65,536."""

COMMIT_BOUNDS: tuple[float, ...] = (
    1.0,
    *(float(most) for power in range(1, 20) for most in (1 << power, 3 << power - 1)),
)
"""Rows of a commit: 1, 2, 3, 4, 6, 8, 12 … 786,432, twice as fine as batch sizes: a profile's largest batch comes from them."""

STAGE_BOUNDS_S: tuple[float, ...] = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Time in a stage, seconds: 1, 2.5 and 5 of each decade from 100 µs to 10 s."""

LATENCY_BOUNDS_S: tuple[float, ...] = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0),
)
"""From event time to commit, seconds: 10 ms to a day, so that a backlog shows as what it is."""


NO_KEYS = FreshKeys(0, 0, 0)


class Stage(StrEnum):
    """A step of the data's way. QUEUE is the time that a batch's oldest row waited in the batcher."""

    POLL = "poll"
    DECODE = "decode"
    QUEUE = "queue"
    ENGINE = "engine"
    GUARD = "guard"
    ENCODE = "encode"
    PRODUCE = "produce"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values v with bounds[i-1] < v <= bounds[i]; the last of `counts` is above all bounds. `total`: their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a partition is behind: records not yet read, and the age of the last one read (seconds, event time)."""

    records: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Everything counted since the start, at `taken_s` (the injected clock's seconds: when the loop made its last step).

    `last_poll_s` is None before the first poll, `engine` before a model is loaded. `not_ready` holds the reasons why the
    worker isn't ready, in words; empty: it is. `fallbacks`: forecasts by what their `fallback_reason` says. `standby`: True
    while the stand-by computes. `oldest_unserved_s` is 0 while nothing waits; `keys` are those that the worker serves.
    """

    taken_s: float
    last_poll_s: float | None
    polls: int
    records: int
    forecasts: int
    withdrawn: int
    superseded: int
    rejections: Mapping[Reason, int]
    batches: Mapping[str, int]
    batch_rows: Histogram
    stages: Mapping[Stage, Histogram]
    end_to_end: Histogram
    commit_rows: Histogram
    transactions: Mapping[str, int]
    assigned: tuple[int, ...]
    rebalances: Mapping[str, int]
    lags: Mapping[int, Lag]
    not_ready: tuple[str, ...]
    engine: EngineSpec | None
    backup: EngineSpec | None
    guard_trips: Mapping[Rule, int]
    fallbacks: Mapping[str, int]
    roll_backs: Mapping[Rule, int]
    engine_failures: Mapping[str, int]
    standby: bool
    models: ModelStatus = field(default_factory=ModelStatus)
    steps: Mapping[str, Histogram] = field(default_factory=lambda: MappingProxyType({}))
    oldest_unserved_s: float = 0.0
    keys: FreshKeys = NO_KEYS

    @property
    def ready(self) -> bool:
        """True if nothing keeps the worker from doing its work."""
        return not self.not_ready

    @property
    def notes(self) -> tuple[str, ...]:
        """What isn't as it should be although the worker does its work, in words."""
        notes = ["device memory is full; the stand-by computes, slower"] if self.standby else []
        if any(self.roll_backs.values()):
            rules = ", ".join(rule for rule, count in self.roll_backs.items() if count)
            notes.append(f"rolled back to the backup since the start: {rules}")
        return tuple(notes)


class Tallies:
    """The counters themselves. The loop thread's own; nothing here may be called from another."""

    def __init__(self) -> None:
        self._last_poll_s: float | None = None
        self._polls = 0
        self._records = 0
        self._forecasts = 0
        self._withdrawn = 0
        self._superseded = 0
        self._rejections = dict.fromkeys(Reason, 0)
        self._batches: dict[str, int] = {}
        self._batch_rows = _Counts(ROW_BOUNDS)
        self._stages = {stage: _Counts(STAGE_BOUNDS_S) for stage in Stage}
        self._end_to_end = _Counts(LATENCY_BOUNDS_S)
        self._commit_rows = _Counts(COMMIT_BOUNDS)
        self._transactions = {"committed": 0, "aborted": 0}
        self._assigned: tuple[int, ...] = ()
        self._rebalances: dict[str, int] = {}
        self._lags: dict[int, Lag] = {}
        self._not_ready: tuple[str, ...] = ("starting",)
        self._engine: EngineSpec | None = None
        self._backup: EngineSpec | None = None
        self._guard_trips = dict.fromkeys(Rule, 0)
        self._fallbacks: dict[str, int] = {}
        self._roll_backs = dict.fromkeys(Rule, 0)
        self._engine_failures = {"error": 0, "out_of_memory": 0}
        self._standby = False
        self._models = ModelStatus()
        self._steps = {during: _Counts(STAGE_BOUNDS_S) for during in ("swap", "steady")}
        self._oldest_unserved_s = 0.0
        self._keys = NO_KEYS

    def polled(self, records: int, now_s: float) -> None:
        """A poll returned `records` records (or none) at `now_s`."""
        self._polls += 1
        self._records += records
        self._last_poll_s = now_s

    def stage(self, stage: Stage, seconds: float) -> None:
        """A pass through `stage` took `seconds`."""
        self._stages[stage].add(seconds)

    def batch(self, rows: int, reason: str, superseded: int = 0) -> None:
        """A batch of `rows` rows was cut for `reason`; `superseded` events of it gave way to newer ones of their keys."""
        self._batch_rows.add(rows)
        self._superseded += superseded
        _count(self._batches, str(reason), 1)

    def rejected(self, reason: Reason, count: int = 1) -> None:
        """`count` records became dead letters."""
        self._rejections[reason] += count

    def forecast(self, rows: int) -> None:
        """`rows` forecasts were produced."""
        self._forecasts += rows

    def withdrawn(self, count: int) -> None:
        """`count` tombstones were passed through: the forecasts of their keys are withdrawn."""
        self._withdrawn += count

    def transaction(self, outcome: str) -> None:
        """A transaction (or at-least-once commit) ended: "committed" or "aborted"."""
        _count(self._transactions, outcome, 1)

    def end_to_end(self, latencies_s: NDArray[np.float64], rows: int) -> None:
        """A commit of `rows` rows (none: nothing is counted); times from event to commit of those that have one, float64[n], seconds.

        NaN isn't counted; below zero (clocks that disagree) counts as zero.
        """
        self._end_to_end.add_all(latencies_s)
        if rows:
            self._commit_rows.add(rows)

    def lag(self, partition: int, records: int, seconds: float) -> None:
        """An assigned partition is `records` behind its end; the last one read is `seconds` old."""
        self._lags[partition] = Lag(records, seconds)

    def assigned(self, partitions: Iterable[int]) -> None:
        """These are the partitions now. Lags of others are forgotten: they are somebody else's."""
        self._assigned = tuple(sorted(partitions))
        self._lags = {partition: lag for partition, lag in self._lags.items() if partition in self._assigned}

    def rebalanced(self, kind: str) -> None:
        """The group changed: "assigned", "revoked" or "lost"."""
        _count(self._rebalances, kind, 1)

    def not_ready(self, reasons: Sequence[str]) -> None:
        """Why the worker isn't ready, in words; empty: it is."""
        self._not_ready = tuple(reasons)

    def engine(self, spec: EngineSpec) -> None:
        """This engine computes from now on."""
        self._engine = spec

    def models(self, status: ModelStatus) -> None:
        """This is known of the model's versions."""
        self._models = status

    def step(self, seconds: float, *, swapping: bool) -> None:
        """A step of the loop took `seconds`, waiting for records left out. swapping: while a version was loaded or tried."""
        self._steps["swap" if swapping else "steady"].add(seconds)

    def backup(self, spec: EngineSpec | None) -> None:
        """This engine takes over when the other one must go; None: there is none."""
        self._backup = spec

    def guard_tripped(self, rule: Rule) -> None:
        """A row, or the engine itself, broke `rule`."""
        self._guard_trips[rule] += 1

    def fallback(self, reason: str, rows: int) -> None:
        """`rows` forecasts were produced that say `reason`."""
        _count(self._fallbacks, reason, rows)

    def rolled_back(self, rule: Rule) -> None:
        """The backup took over, because of `rule`."""
        self._roll_backs[rule] += 1

    def engine_failed(self, kind: str) -> None:
        """A batch failed in an engine: "error" or "out_of_memory"."""
        _count(self._engine_failures, kind, 1)

    def standby(self, *, active: bool) -> None:
        """Whether the stand-by computes."""
        self._standby = active

    def freshness(self, oldest_unserved_s: float, keys: FreshKeys) -> None:
        """The oldest event that waits for its commit is so old; these are the keys served."""
        self._oldest_unserved_s, self._keys = oldest_unserved_s, keys

    @property
    def read(self) -> tuple[int, int]:
        """Records read, and events superseded, so far."""
        return self._records, self._superseded

    def snapshot(self, now_s: float) -> Statistics:
        """Everything so far, frozen. `now_s` is the time of the loop's step that takes it."""
        return Statistics(
            taken_s=now_s,
            last_poll_s=self._last_poll_s,
            polls=self._polls,
            records=self._records,
            forecasts=self._forecasts,
            withdrawn=self._withdrawn,
            superseded=self._superseded,
            rejections=MappingProxyType(self._rejections.copy()),
            batches=MappingProxyType(self._batches.copy()),
            batch_rows=self._batch_rows.frozen(),
            stages=MappingProxyType({stage: counts.frozen() for stage, counts in self._stages.items()}),
            end_to_end=self._end_to_end.frozen(),
            commit_rows=self._commit_rows.frozen(),
            transactions=MappingProxyType(self._transactions.copy()),
            assigned=self._assigned,
            rebalances=MappingProxyType(self._rebalances.copy()),
            lags=MappingProxyType(self._lags.copy()),
            not_ready=self._not_ready,
            engine=self._engine,
            backup=self._backup,
            guard_trips=MappingProxyType(self._guard_trips.copy()),
            fallbacks=MappingProxyType(self._fallbacks.copy()),
            roll_backs=MappingProxyType(self._roll_backs.copy()),
            engine_failures=MappingProxyType(self._engine_failures.copy()),
            standby=self._standby,
            models=self._models,
            steps=MappingProxyType({during: counts.frozen() for during, counts in self._steps.items()}),
            oldest_unserved_s=self._oldest_unserved_s,
            keys=self._keys,
        )


class _Counts:
    """A histogram that is still filling."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def add_all(self, values: NDArray[np.float64]) -> None:
        known = np.maximum(values[~np.isnan(values)], 0.0)
        places = np.searchsorted(self._bounds, known, side="left")
        added = np.bincount(places, minlength=len(self._counts)).tolist()
        self._counts = [before + more for before, more in zip(self._counts, added, strict=True)]
        self._total += float(known.sum())

    def frozen(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total)


def _count(counts: dict[str, int], label: str, more: int) -> None:
    counts[label] = counts.get(label, 0) + more
