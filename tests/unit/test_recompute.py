from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.engines import expected_forecasts
from tests.helpers.faulty import FaultyEngine
from worker.engine import Columns
from worker.errors import EngineError, FatalEngineError, OutOfDeviceMemoryError
from worker.recompute import Recomputed, recompute

CONTROL = {"sales": np.full((2, 3), 500.0, np.float32)}


def rows_marked(count: int) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    return {"sales": np.arange(count, dtype=np.float32)[:, None] + np.array([0, 1, 2], np.float32)}


def run(
    engine: FaultyEngine,
    inputs: Columns,
    rows: list[int] | None = None,
    *,
    poison_rows: int = 4,
    floor_rows: int = 1,
    control: Columns | None = CONTROL,
) -> Recomputed:
    slot = engine.acquire()
    assert slot is not None
    chosen = np.arange(len(inputs["sales"])) if rows is None else np.array(rows, np.intp)
    try:
        return recompute(engine, slot, inputs, chosen, poison_rows=poison_rows, floor_rows=floor_rows, control=control)
    finally:
        engine.release(slot)  # raises if the slot isn't ours again


def right(inputs: Columns, rows: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return expected_forecasts(inputs, len(inputs["sales"]), horizon=3, quantiles=(0.1, 0.5, 0.9))[rows]


@pytest.fixture
def engine() -> FaultyEngine:
    return FaultyEngine({"sales": 3}, max_rows=8, slots=1)


def test_chosen_rows_in_pieces_of_what_the_engine_takes(engine: FaultyEngine) -> None:
    inputs, rows = rows_marked(30), [*range(0, 30, 2), 29]
    done = run(engine, inputs, rows)
    np.testing.assert_array_equal(done.forecasts.values, right(inputs, rows))
    assert (engine.submitted_rows, done.failed) == ([8, 8], {})


def test_the_result_has_memory_of_its_own(engine: FaultyEngine) -> None:
    inputs = rows_marked(3)
    done = run(engine, inputs)
    slot = engine.acquire()
    assert slot is not None
    np.testing.assert_array_equal(done.forecasts.values, right(inputs, [0, 1, 2]))


@pytest.mark.parametrize("guilty", [[0], [7], [3, 4], [0, 2, 5, 7]])
def test_guilty_rows_are_found_and_the_others_computed(engine: FaultyEngine, guilty: list[int]) -> None:
    engine.poison = frozenset(map(float, guilty))
    inputs = rows_marked(8)
    done = run(engine, inputs)
    assert sorted(done.failed) == guilty
    assert "can't be computed" in done.failed[guilty[0]]
    innocent = [row for row in range(8) if row not in guilty]
    np.testing.assert_array_equal(done.forecasts.values[innocent], right(inputs, innocent))
    assert np.isnan(done.forecasts.values[guilty]).all()


def test_with_more_guilty_rows_than_allowed_the_engine_is_to_blame(engine: FaultyEngine) -> None:
    engine.poison = frozenset(map(float, range(5)))
    with pytest.raises(EngineError, match="can't be computed"):
        run(engine, rows_marked(8), poison_rows=4)


def test_a_lonely_row_is_guilty_if_the_engine_computes_something_else(engine: FaultyEngine) -> None:
    engine.poison = frozenset({0.0})
    assert sorted(run(engine, rows_marked(1)).failed) == [0]
    with pytest.raises(EngineError):
        run(engine, rows_marked(1), control=None)
    engine.dead = True
    with pytest.raises(EngineError, match="nothing works"):
        run(engine, rows_marked(1))


def test_what_does_not_fit_is_halved_until_it_does(engine: FaultyEngine) -> None:
    engine.memory_rows = 3
    inputs = rows_marked(8)
    done = run(engine, inputs, floor_rows=2)
    np.testing.assert_array_equal(done.forecasts.values, right(inputs, list(range(8))))
    assert engine.submitted_rows == [2, 2, 2, 2]


def test_below_the_floor_nothing_is_halved(engine: FaultyEngine) -> None:
    engine.memory_rows = 1
    with pytest.raises(OutOfDeviceMemoryError):
        run(engine, rows_marked(8), floor_rows=2)
    assert engine.submitted_rows == []


def test_a_lost_engine_is_not_asked_again(engine: FaultyEngine) -> None:
    engine.lost = True
    with pytest.raises(FatalEngineError):
        run(engine, rows_marked(8))
    assert engine.submitted_rows == [8]
