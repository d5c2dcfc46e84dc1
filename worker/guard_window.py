"""What the forecasts of many rows look like together: sums over a sliding window of rows, and what is odd about them.

A model can be wrong in every row without any row being impossible. Three figures over a window show it:

- the distribution of log(forecast / recent mean) against the card's, and against that of the version before: population
  stability index, sum of (p - q) * ln(p / q) over the bins;
- the mean of the same against the card's, for shifts that stay within a bin;
- the weekday pattern of the forecasts against that of the rows' own histories: the correlation, pooled over rows, must be
  largest where the weekdays agree. A forecast that is a day late correlates with the wrong days. This says something only
  where the two have a pattern in common at all, whichever days it is off by.

Pure: samples in, figures out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.guard_reference import EDGES

WEEK_DAYS = 7
HALF_A_ROW = 0.5
"""Added to every bin of a reference, so that an empty one has a logarithm."""
PRIOR_ROWS = 20.0
"""Rows as the reference expects them that are added to what was counted: few rows say little, and empty bins nothing at all."""
FLAT = 0.01
"""Weekdays that differ from the mean by less than this share of it are rounding, not a pattern."""
REFERENCE_ROWS = 10_000
"""Rows that a card's shares count for where an empty bin of theirs gets half a row."""

MOST_MEAN = 1e9
"""Rows that sold more per day don't count: whatever they are, their squares would drown all others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What the rows of one batch add up to. Rows with little history are left out: their ratios mean nothing.

    rows: counted. bins int64[20]: of log(forecast / recent mean) in `EDGES`; card_bins int64[n]: the same in the card's.
    total: sum of the logarithms, held within the edges. pairs float64[7, 7]: [i, j] sums forecast day i times history day j over
    rows, both as deviations from the row's mean in units of its recent mean; day 0 has the weekday of the forecast's first.
    power: sums of squares of the two.
    """

    rows: int
    bins: NDArray[np.int64]
    card_bins: NDArray[np.int64]
    total: float
    pairs: NDArray[np.float64]
    power: NDArray[np.float64]


def sample(
    middle: NDArray[np.float32], history: NDArray[np.float32], edges: NDArray[np.float64], least_mean: float
) -> Sample:
    """The sample of forecasts `middle` float32[rows, horizon] (middle quantile) of rows with `history` float32[rows, days].

    edges: the card's. least_mean: rows whose recent mean is smaller don't count, units per day. Values must be finite.
    """
    recent = history.mean(axis=1, dtype=np.float64).astype(np.float32)
    counted = (recent >= least_mean) & (recent <= MOST_MEAN)
    if not counted.all():
        middle, history, recent = middle[counted], history[counted], recent[counted]
    ratio = middle.mean(axis=1) / recent
    bins = binned(ratio, EDGES)
    middle, history = middle / recent[:, None], history / recent[:, None]
    pairs, power = _weekdays(middle, history)
    held = np.log(np.clip(ratio, np.exp(edges[0]), np.exp(edges[-1])))
    return Sample(
        rows=len(recent),
        bins=bins,
        card_bins=bins if edges is EDGES or np.array_equal(edges, EDGES) else binned(ratio, edges),
        total=float(held.sum(dtype=np.float64)),
        pairs=pairs,
        power=power,
    )


def binned(ratio: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of `ratio` have their logarithm in each bin of `edges`; the outer bins are open."""
    inner = np.exp(edges[1:-1]).astype(ratio.dtype)  # compared as ratios: a logarithm of each row costs more
    below = np.searchsorted(np.sort(ratio), inner, side="left")
    return np.diff(below, prepend=0, append=len(ratio)).astype(np.int64)


def _weekdays(
    forecast: NDArray[np.float32], history: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`Sample.pairs` and `Sample.power` over whole weeks, the history's last and the forecast's first; zeros without any."""
    weeks, past = forecast.shape[1] // WEEK_DAYS, history.shape[1] // WEEK_DAYS
    if not weeks or not past or not len(forecast):
        return np.zeros((WEEK_DAYS, WEEK_DAYS)), np.zeros(2)
    ahead = forecast[:, : weeks * WEEK_DAYS] @ _folding(weeks)
    behind = history[:, history.shape[1] - past * WEEK_DAYS :] @ _folding(past)
    pairs = (ahead.T @ behind).astype(np.float64)
    return pairs, np.array([np.vdot(ahead, ahead), np.vdot(behind, behind)], np.float64)


def _folding(weeks: int) -> NDArray[np.float32]:
    """float32[weeks * 7, 7]: days times this is the mean of each weekday less the mean of all."""
    mean = np.tile(np.eye(WEEK_DAYS), (weeks, 1)) / weeks
    return (mean - 1.0 / (weeks * WEEK_DAYS)).astype(np.float32)


class Window:
    """Sums over the last `max_rows` rows or so: whole samples, the oldest leaves once the others are enough."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._samples: deque[Sample] = deque()
        self.rows = 0
        self._total = 0.0
        self._bins: NDArray[np.int64] | None = None
        self._card_bins: NDArray[np.int64] | None = None
        self._pairs = np.zeros((WEEK_DAYS, WEEK_DAYS))
        self._power = np.zeros(2)

    def add(self, new: Sample) -> None:
        """Take one more sample in, and let the oldest go that aren't needed."""
        self._samples.append(new)
        self._move(new, 1)
        while self.rows - self._samples[0].rows >= self._max_rows:
            self._move(self._samples.popleft(), -1)

    @property
    def bins(self) -> NDArray[np.int64]:
        """int64[20]: rows of the window in each bin of `EDGES`."""
        return np.zeros(len(EDGES) - 1, np.int64) if self._bins is None else self._bins

    @property
    def card_bins(self) -> NDArray[np.int64]:
        """int64[n]: the same in the bins of the card's histogram. Only once a sample was added."""
        if self._card_bins is None:
            raise ValueError("the window is empty")
        return self._card_bins

    @property
    def mean(self) -> float:
        """Mean of log(forecast / recent mean), each held within the card's edges."""
        return self._total / max(self.rows, 1)

    @property
    def weekday_fit(self) -> NDArray[np.float64]:
        """float64[7]: correlation of the forecasts with the histories of the weekday so many days later.

        In [-1, 1]; the first is that of the same weekdays. All 0 if one of the two has no weekday pattern at all.
        """
        if not (self._power > self.rows * WEEK_DAYS * FLAT**2).all():
            return np.zeros(WEEK_DAYS)
        day = np.arange(WEEK_DAYS)
        sums = np.array([self._pairs[day, (day + lag) % WEEK_DAYS].sum() for lag in range(WEEK_DAYS)])
        fit: NDArray[np.float64] = sums / np.sqrt(self._power[0] * self._power[1])
        return fit

    def _move(self, each: Sample, sign: int) -> None:
        self.rows += sign * each.rows
        self._total += sign * each.total
        self._bins = sign * each.bins if self._bins is None else self._bins + sign * each.bins
        self._card_bins = sign * each.card_bins if self._card_bins is None else self._card_bins + sign * each.card_bins
        self._pairs = self._pairs + sign * each.pairs
        self._power = self._power + sign * each.power


def stability_index(counts: NDArray[np.int64], reference: NDArray[np.float64]) -> float:
    """Population stability index of `counts` int64[n] against `reference` float64[n], row counts too (or shares times rows)."""
    expected = (reference + HALF_A_ROW) / (reference.sum() + HALF_A_ROW * len(reference))
    got = (counts + PRIOR_ROWS * expected) / (counts.sum() + PRIOR_ROWS)
    return float(((got - expected) * np.log(got / expected)).sum())
