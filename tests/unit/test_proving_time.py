"""How the time of a full batch is taken when others keep the processor busy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.engine_card import CARD_NAME, EngineCard, load_card
from schemas.load import load_schema
from tests.helpers.models import tiny_model
from worker.onnx_engine import OnnxEngine
from worker.proving import FAR_OVER, TIMED_RUNS, TIMED_RUNS_AT_MOST, ProofError, warm

BUDGET_MS = 5.0


class Times:
    """A clock under which the runs take `seconds`, one after the other, and the last one's again and again."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = iter(self._reads(seconds))
        self.runs = 0

    def __call__(self) -> float:
        return next(self._seconds)

    def _reads(self, seconds: tuple[float, ...]) -> Iterator[float]:
        now_s = 0.0
        while True:
            yield now_s
            now_s += seconds[min(self.runs, len(seconds) - 1)]
            self.runs += 1
            yield now_s


@pytest.fixture
def version(tmp_path: Path) -> tuple[OnnxEngine, EngineCard]:
    folder = tiny_model(tmp_path)
    card = load_card(folder / CARD_NAME).model_copy(update={"latency_budget_ms": BUDGET_MS})
    schema = load_schema(None, "sku_features")
    return OnnxEngine.load(folder / "model.onnx", card, schema, slots=1, max_rows=8, threads=1), card


def test_the_shortest_of_a_few_runs_counts(version: tuple[OnnxEngine, EngineCard]) -> None:
    times = Times(0.004, 0.003, 0.02)
    assert warm(*version, times) == pytest.approx(0.003)
    assert times.runs == TIMED_RUNS


def test_a_version_that_had_to_wait_for_the_processor_gets_more_tries(version: tuple[OnnxEngine, EngineCard]) -> None:
    times = Times(0.1, 0.2, 0.3, 0.05, 0.004)
    assert warm(*version, times) == pytest.approx(0.004)
    assert times.runs == 5


def test_one_that_is_slow_beyond_any_busy_processor_is_not_timed_on(version: tuple[OnnxEngine, EngineCard]) -> None:
    times = Times(BUDGET_MS / 1000 * FAR_OVER)
    with pytest.raises(ProofError, match=rf"250\.0 ms \(the best of {TIMED_RUNS}\), the card's budget is 5 ms"):
        warm(*version, times)


def test_one_that_is_always_slow_is_refused_in_the_end(version: tuple[OnnxEngine, EngineCard]) -> None:
    times = Times(0.05)
    with pytest.raises(ProofError, match=rf"50\.0 ms \(the best of {TIMED_RUNS_AT_MOST}\), the card's budget is 5 ms"):
        warm(*version, times)
