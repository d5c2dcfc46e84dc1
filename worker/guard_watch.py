"""The guard: holds every batch of forecasts against the rows' histories and the engine's reference.           (pure)

`row_faults` finds rows that must not leave. The others return a `Trip` when the engine itself isn't to be trusted any
more: `watch` by what many rows look like together, `beside` by what the version before makes of the same rows, `replaced` by how
many rows only another engine could forecast, `took` by how long it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from worker.engine import Columns, EngineSpec
from worker.guard import Fault, Rule, explosions, faults
from worker.guard_canary import Canary
from worker.guard_reference import EDGES, Reference
from worker.guard_window import REFERENCE_ROWS, Window, sample, stability_index
from worker.settings_guard import GuardSettings

BEYOND_USUAL = 1.5
"""The drift and jump indices may be so many times what the card says was the most on its reference days: few series that share their
holidays move together, and a window of them is never far from the next."""

LEAST_FIT = 0.1
"""A forecast can be late only if it fits some weekdays of the histories: the best of the seven correlations must be this large,
and larger over fewer rows, where one of seven is large by chance."""


@dataclass(frozen=True, slots=True)
class Trip:
    """Why an engine isn't to be trusted any more. `detail` says got and expected, for a person."""

    rule: Rule
    detail: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the window: `what` it says, what it is, and the most that is allowed."""

    rule: Rule
    what: str
    got: float
    allowed: float


class Guard:
    """Judges the forecasts of one engine after the other.

    Args:
        limits: the settings.
        references: engine digest -> what its forecasts usually look like. Without one, only the rules that need none hold.
    """

    def __init__(self, limits: GuardSettings, references: Mapping[str, Reference]) -> None:
        self._limits = limits
        self._references = dict(references)
        self._versions: dict[str, Reference] = {}
        self._engine: EngineSpec | None = None
        self._window = Window(limits.window_rows)
        self._before: NDArray[np.int64] | None = None
        self._new = False
        self._usual_before = 0.0
        self._canary: Canary | None = None
        self._slow: deque[bool] = deque(maxlen=limits.latency_batches)
        self._replaced: deque[tuple[int, int]] = deque()

    def know(self, digest: str, reference: Reference) -> None:
        """From now on, forecasts of the engine with this digest are held against `reference`."""
        self._references[digest] = reference

    def know_versions(self, references: Mapping[str, Reference]) -> None:
        """These are the versions in use, digest -> reference, in the place of those that were named so before."""
        self._versions = dict(references)

    def reference(self, spec: EngineSpec) -> Reference:
        """What is known of an engine; an empty one if nothing is."""
        return self._versions.get(spec.digest) or self._references.get(spec.digest, _UNKNOWN)

    def row_faults(self, spec: EngineSpec, inputs: Columns, values: NDArray[np.float32]) -> dict[int, Fault]:
        """Row -> what is wrong with its forecast. inputs: float32[rows or more, ...]; values: float32[rows, ...]."""
        found = {fault.row: fault for fault in faults(values)}
        history = self._history(spec, inputs, len(values))
        if history is not None:
            for fault in explosions(values, history, self._limits.explosion_factor, self._limits.least_sales):
                found.setdefault(fault.row, fault)
        return found

    def watch(
        self, spec: EngineSpec, inputs: Columns, values: NDArray[np.float32], without: Sequence[int] = ()
    ) -> Trip | None:
        """Take a batch into the window, but for the rows `without`, and judge the window. Arguments as in `row_faults`."""
        self._turn_to(spec)
        history, reference = self._history(spec, inputs, len(values)), self.reference(spec)
        if history is None:
            return None
        middle = values[:, :, values.shape[2] // 2]
        if without:
            kept = np.delete(np.arange(len(values)), list(without))
            middle, history = middle[kept], history[kept]
        edges = EDGES if reference.edges is None else reference.edges
        self._window.add(sample(middle, history, edges, self._limits.least_mean))
        over = next((figure for figure in self.figures() if figure.got > figure.allowed), None)
        if self._window.rows >= min(self._limits.full_rows, self._limits.window_rows):
            self._new = False
        if self._window.rows >= self._limits.window_rows:
            self._before = None  # judged over a full window; from here on seasons would count as jumps
        if over is None:
            return None
        rows = self._window.rows
        return Trip(
            over.rule, f"{over.what} {over.got:.3f} over the last {rows} rows, expected at most {over.allowed:.3f}"
        )

    def is_unsure_of(self, spec: EngineSpec) -> bool:
        """Whether `spec` took over from another version, and too few of its rows were seen to say that they are as usual.

        False where nothing says what is usual.
        """
        return self._new and self._engine is spec and self.reference(spec).mean_of is not None

    def figures(self) -> list[Figure]:
        """Every figure of the window as it is now; empty while it has too few rows."""
        return [] if self._window.rows < self._limits.least_rows else list(self._figures())

    def canary(self, spec: EngineSpec) -> Canary | None:
        """What is to be compared with the version before, if this one is new: its first rows, before they count. None: nothing."""
        self._turn_to(spec)
        return self._canary

    def forget_canary(self) -> None:
        """There is nothing to compare the new version's first rows with."""
        self._canary = None

    def beside(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> Trip | None:
        """Forecasts of the same rows, which `canary` wanted, by the version before and this one: float32[rows, horizon, quantiles] both."""
        canary, limits = self._canary, self._limits
        if canary is None or before.shape != now.shape:
            self._canary = None
            return None
        canary.add(before, now, limits.least_mean)
        if canary.complete:
            self._canary = None
        if canary.rows < min(limits.least_rows, limits.canary_rows):
            return None
        wider = max(1.0, sqrt(limits.canary_rows / canary.rows))
        days, allowed_days = canary.lag.days, min(limits.canary_days * wider, 0.5)
        same = f"forecasts of the same {canary.rows} rows"
        if days is not None and abs(days) > allowed_days:
            when = "late" if days > 0 else "early"
            return Trip(Rule.CANARY, f"{same}: {abs(days):.2f} days {when}, expected at most {allowed_days:.2f}")
        allowed = limits.canary_difference * wider
        if canary.difference > allowed:
            return Trip(Rule.CANARY, f"{same}: difference {canary.difference:.3f}, expected at most {allowed:.3f}")
        return None

    def replaced(self, spec: EngineSpec, rows: int, replaced: int) -> Trip | None:
        """Of a batch of `rows` rows, so many had to be forecast by another engine, which could."""
        self._turn_to(spec)
        limits, window = self._limits, self._replaced
        window.append((rows, replaced))
        while sum(rows for rows, _ in window) - window[0][0] >= limits.window_rows:
            window.popleft()
        total, count = sum(rows for rows, _ in window), sum(count for _, count in window)
        if count <= limits.fault_share * max(total, limits.least_rows):
            return None
        return Trip(
            Rule.FAULT_SHARE,
            f"only the backup could forecast {count} of the last {total} rows, expected at most {limits.fault_share:g} "
            f"of {max(total, limits.least_rows)}",
        )

    def took(self, spec: EngineSpec, rows: int, engine_s: float) -> Trip | None:
        """A batch of `rows` rows kept the engine busy for at least `engine_s` seconds."""
        self._turn_to(spec)
        reference = self.reference(spec)
        if reference.latency_budget_s is None:
            return None
        budget_s = reference.latency_budget_s * max(1.0, rows / reference.budget_rows)
        self._slow.append(engine_s > budget_s)
        slow = sum(self._slow)
        if 2 * slow <= self._limits.latency_batches:
            return None
        return Trip(
            Rule.LATENCY,
            f"{slow} of the last {len(self._slow)} batches took longer than the card's budget; the last one {engine_s:.4f} s, "
            f"expected {budget_s:.4f} s",
        )

    def rolled_back(self) -> None:
        """What was seen until now came from a version that isn't trusted: compare nothing with it."""
        self._engine = None
        self._start(before=None)

    def _turn_to(self, spec: EngineSpec) -> None:
        before = self._engine
        if before is spec:
            return
        self._engine = spec
        if before is not None and before.digest == spec.digest:
            return
        if before is None or self._window.rows < self._limits.least_rows:  # nothing is known of it
            self._start(before=None)
            self._new = before is not None
            return
        self._start(before=self._window.bins.copy())
        self._new = True
        self._usual_before = self.reference(before).usual_index
        if self._limits.canary_rows:
            self._canary = Canary(before.digest, self._limits.canary_rows)

    def _start(self, *, before: NDArray[np.int64] | None) -> None:
        self._before = before
        self._new = False
        self._canary = None
        self._window = Window(self._limits.window_rows)
        self._slow.clear()
        self._replaced.clear()

    def _history(self, spec: EngineSpec, inputs: Columns, rows: int) -> NDArray[np.float32] | None:
        """float32[rows, days] of the rows' own sales, if the card says which input that is."""
        name = self.reference(spec).mean_of
        column = None if name is None else inputs.get(name)
        return None if column is None or column.ndim != 2 or rows == 0 else column[:rows]

    def _figures(self) -> Iterator[Figure]:
        """The cheapest first: the mean, then the distributions, then the weekdays."""
        window, limits = self._window, self._limits
        known = Reference() if self._engine is None else self.reference(self._engine)
        wider = self._wider(window.rows)
        if known.shares is not None:
            yield Figure(
                Rule.SHIFT,
                f"mean of log(forecast / recent mean) {window.mean:+.3f} is off the card's {known.mean:+.3f} by",
                abs(window.mean - known.mean),
                limits.shift * wider,
            )
            index = stability_index(window.card_bins, known.shares * REFERENCE_ROWS)
            limit = max(limits.drift_index, BEYOND_USUAL * known.usual_index)
            yield Figure(Rule.DRIFT, "stability index against the card", index, limit * wider)
        fit = window.weekday_fit
        if fit.max() >= LEAST_FIT * wider:
            lead = float(fit[1:].max() - fit[0])
            yield Figure(Rule.WEEKDAY, "correlation with other weekdays is higher by", lead, limits.weekday_lag * wider)
        if self._before is not None:
            index = stability_index(window.bins, self._before.astype(np.float64))
            both = 1 / (1 / window.rows + 1 / float(self._before.sum()))  # neither window is the truth
            usual = max(known.usual_index, self._usual_before)
            limit = max(limits.jump_index, BEYOND_USUAL * usual) * self._wider(both)
            yield Figure(Rule.JUMP, "stability index against the version before", index, limit)

    def _wider(self, rows: float) -> float:
        """By how much limits are wider over so few rows, as chance has it."""
        return max(1.0, sqrt(self._limits.full_rows / rows))


_UNKNOWN = Reference()
