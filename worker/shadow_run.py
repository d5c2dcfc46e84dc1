"""A new version's trial: it computes copies of live batches on the loader's thread, which owns its engine.

Why there and not on the loop's thread: an engine has one owner, and the loader made this one; ONNX Runtime and TensorRT give
up Python's lock while they compute, so the loop goes on meanwhile; and whatever the new version does, however slow it is, it
costs the loop no more than a copy now and then. The share of time is kept by resting after each batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import structlog

from worker.deadline import Clock
from worker.errors import EngineError, FatalEngineError
from worker.handover import Handover, Sample
from worker.loading import Loaded
from worker.low_priority import at_low_priority
from worker.model_status import Difference
from worker.proving import compute
from worker.shadow import Bounds, Comparison

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """share: of the live batches, at most. max_time_share: of the time that may be computed, at most. Both in (0, 1]."""

    share: float
    max_time_share: float
    bounds: Bounds


class ShadowRun:
    """One version's trial beside the serving one."""

    def __init__(self, trial: Trial, shadow: Loaded, serving: Loaded, clock: Clock) -> None:
        self._trial = trial
        self._shadow = shadow
        self._clock = clock
        self._rest_until_s = float("-inf")
        ratio = shadow.full_batch_s / serving.full_batch_s if serving.full_batch_s > 0 else math.nan
        self._comparison = Comparison(trial.bounds, ratio)
        self.began_s = clock()

    @property
    def difference(self) -> Difference:
        """So far."""
        return self._comparison.difference

    @property
    def complete(self) -> bool:
        """True once enough rows were compared."""
        return self._comparison.complete

    def verdict(self) -> str | None:
        """Why it must not serve; None if it may."""
        return self._comparison.verdict()

    def ask(self, handover: Handover, now_s: float) -> float:
        """Ask the loop for the next batch, unless it is time to rest; returns the seconds of rest left, else infinity."""
        handover.sample_every = max(1, round(1 / self._trial.share))
        if now_s < self._rest_until_s:
            return self._rest_until_s - now_s
        handover.sample_wanted = True
        return float("inf")

    def compare(self, sample: Sample) -> str | None:
        """Compute a batch that the serving version has computed. Returns why the trial failed, None if it goes on."""
        began_s = self._clock()
        rows, most = len(sample.values), self._shadow.engine.spec.max_rows
        try:
            for first in range(0, rows, most):
                part = slice(first, min(first + most, rows))
                columns = {name: column[part] for name, column in sample.columns.items()}
                values = at_low_priority(lambda: compute(self._shadow.engine, columns, len(sample.values[part])))  # noqa: B023
                self._comparison.add(sample.values[part], values)
        except FatalEngineError:
            raise
        except (EngineError, ValueError) as error:
            return f"shadow, after {self.difference.rows} rows: {error}"
        spent_s = self._clock() - began_s
        self._rest_until_s = self._clock() + spent_s * (1 / self._trial.max_time_share - 1)
        return None


class Trials:
    """One trial at a time, and what the loop is asked for it.

    Args:
        trial: how they are made; None: there are none, and `start` isn't called.
    """

    def __init__(self, trial: Trial | None, handover: Handover, clock: Clock) -> None:
        self._trial = trial
        self._handover = handover
        self._clock = clock
        self._run: ShadowRun | None = None

    @property
    def wanted(self) -> bool:
        """Whether new versions are tried at all."""
        return self._trial is not None

    @property
    def run(self) -> ShadowRun | None:
        """The one under way."""
        return self._run

    def start(self, shadow: Loaded, serving: Loaded) -> None:
        """Begin to try `shadow` beside `serving`."""
        if self._trial is None:
            raise ValueError("a trial was started, but there are none by setting")
        self._run = ShadowRun(self._trial, shadow, serving, self._clock)
        log.info("version runs in the shadow", version=str(shadow.version), rows=self._trial.bounds.rows)

    def ask(self) -> float:
        """Ask the loop for a batch if one is due; returns after how many seconds, at most, to ask again."""
        return float("inf") if self._run is None else self._run.ask(self._handover, self._clock())

    def compare(self, sample: Sample) -> str | None:
        """See `ShadowRun.compare`. A sample that comes after the trial's end is left alone."""
        return None if self._run is None else self._run.compare(sample)

    def end(self) -> float | None:
        """The loop is asked for nothing any more. Returns how long the trial took, seconds; None if there was none."""
        run, self._run = self._run, None
        self._handover.sample_every, self._handover.sample_wanted = 0, False
        return None if run is None else self._clock() - run.began_s
