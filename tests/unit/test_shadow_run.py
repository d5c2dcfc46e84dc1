"""Trials on the loader's thread; the whole of a trial is in test_swapper.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine, expected_forecasts
from worker.engine import Slot, Ticket
from worker.errors import EngineError, FatalEngineError
from worker.handover import Fitted, Handover, Sample
from worker.loading import Loaded
from worker.shadow import Bounds
from worker.shadow_run import ShadowRun, Trial, Trials
from worker.version_choice import VersionId

BOUNDS = Bounds(rows=8, max_wape=0.2, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=3.0)
TRIAL = Trial(share=0.3, max_time_share=0.25, bounds=BOUNDS)


class Ticking(FakeEngine):
    """Each batch takes a second."""

    def __init__(self, clock: ManualClock, **options: Any) -> None:
        super().__init__({"sales": 2}, max_rows=4, **options)
        self._clock = clock

    def submit(self, slot: Slot, rows: int) -> Ticket:
        self._clock.advance(1.0)
        return super().submit(slot, rows)


class Bench:
    def __init__(self, trial: Trial | None = TRIAL) -> None:
        self.clock = ManualClock()
        self.handover = Handover()
        self.engine = Ticking(self.clock)
        self.shadow = self.loaded(self.engine, 0.3)
        self.serving = self.loaded(Ticking(self.clock), 0.1)
        self.trials = Trials(trial, self.handover, self.clock)

    def loaded(self, engine: FakeEngine, seconds: float) -> Loaded:
        return Loaded(fitted=Fitted(engine, VersionId("v", "")), full_batch_s=seconds)

    def started(self) -> ShadowRun:
        self.trials.start(self.shadow, self.serving)
        run = self.trials.run
        assert run is not None
        return run

    def sample(self, rows: int, *, horizon: int = 3, drift: float = 1.0) -> Sample:
        columns = {"sales": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)}
        values = expected_forecasts(columns, rows, horizon=horizon, quantiles=(0.1, 0.5, 0.9))
        return Sample(columns, (values * drift).astype(np.float32))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_sample_larger_than_a_batch_is_compared_in_parts(bench: Bench) -> None:
    run = bench.started()
    assert bench.trials.compare(bench.sample(9)) is None
    assert bench.engine.submitted_rows == [4, 4, 1]
    assert (run.difference.rows, run.difference.wape) == (9, 0.0)
    assert run.complete
    assert run.verdict() is None
    assert bench.engine.free == 2


def test_how_long_a_full_batch_takes_is_known_from_the_proofs(bench: Bench) -> None:
    assert bench.started().difference.latency_ratio == pytest.approx(3.0)
    bench.serving = replace(bench.serving, full_batch_s=0.0)
    assert math.isnan(bench.started().difference.latency_ratio)


def test_a_difference_is_the_verdicts(bench: Bench) -> None:
    run = bench.started()
    bench.trials.compare(bench.sample(8, drift=2.0))
    assert run.complete
    assert "difference from the serving version 0.500" in (run.verdict() or "")


def test_it_rests_so_long_that_its_share_of_time_is_kept(bench: Bench) -> None:
    bench.started()
    assert bench.trials.ask() == math.inf
    assert bench.handover.sample_wanted
    bench.handover.sample_wanted = False
    bench.trials.compare(bench.sample(8))  # two seconds: a quarter of eight
    assert bench.trials.ask() == pytest.approx(6.0)
    assert not bench.handover.sample_wanted
    bench.clock.advance(5.0)
    assert bench.trials.ask() == pytest.approx(1.0)
    bench.clock.advance(1.0)
    assert bench.trials.ask() == math.inf
    assert bench.handover.sample_wanted


@pytest.mark.parametrize(("share", "every"), [(1.0, 1), (0.5, 2), (0.3, 3), (0.01, 100)])
def test_the_share_of_batches_is_asked_for_as_every_so_many(share: float, every: int) -> None:
    bench = Bench(replace(TRIAL, share=share))
    bench.started()
    bench.trials.ask()
    assert bench.handover.sample_every == every


def test_a_batch_that_fails_in_the_shadow_ends_the_trial_with_its_reason(bench: Bench) -> None:
    bench.started()
    bench.trials.compare(bench.sample(3))
    bench.engine.fail_collect = [EngineError("broken")]
    assert bench.trials.compare(bench.sample(1)) == "shadow, after 3 rows: broken"


def test_another_shape_ends_the_trial(bench: Bench) -> None:
    bench.started()
    problem = bench.trials.compare(bench.sample(2, horizon=5))
    assert problem == "shadow, after 0 rows: shape: got (2, 3, 3), the serving version gives (2, 5, 3)"


def test_an_error_after_which_no_engine_works_is_the_callers(bench: Bench) -> None:
    bench.started()
    bench.engine.fail_submit = [FatalEngineError("lost")]
    with pytest.raises(FatalEngineError, match="lost"):
        bench.trials.compare(bench.sample(1))


def test_without_a_trial_nothing_is_asked_compared_or_timed(bench: Bench) -> None:
    assert bench.trials.wanted
    assert (bench.trials.run, bench.trials.ask(), bench.trials.end()) == (None, math.inf, None)
    assert bench.trials.compare(bench.sample(2)) is None  # of a trial that has ended
    assert (bench.engine.submitted_rows, bench.handover.sample_every) == ([], 0)


def test_its_end_tells_its_time_and_that_nothing_is_asked_for_any_more(bench: Bench) -> None:
    bench.started()
    bench.trials.ask()
    bench.clock.advance(7.0)
    assert bench.trials.end() == pytest.approx(7.0)
    assert (bench.handover.sample_every, bench.handover.sample_wanted) == (0, False)
    assert (bench.trials.run, bench.trials.end()) == (None, None)


def test_where_there_are_none_by_setting_none_can_be_started() -> None:
    bench = Bench(None)
    assert not bench.trials.wanted
    with pytest.raises(ValueError, match="there are none by setting"):
        bench.started()
