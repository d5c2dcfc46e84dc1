from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.swap_steps import COLUMNS, STAGES, Block, judged, parts_ms
from bench.swap_worker import NotedTallies
from worker.statistics import Stage


def block(began_s: float, *, swaps: int) -> Block:
    return Block(swaps=swaps, late=0, began_s=began_s, ended_s=began_s + 10, load=1.0, lag_at_end=5)


def notes(began_s: float, seconds: float, *, swapping: bool, count: int = 200) -> NDArray[np.float64]:
    """Steps within a block, half of each spent decoding."""
    found = np.zeros((count, len(COLUMNS)))
    found[:, 0] = began_s + 1 + np.arange(count) / 100
    found[:, 1] = seconds
    found[:, 2] = swapping
    found[:, COLUMNS.index(Stage.DECODE)] = seconds / 2
    return found


@pytest.mark.parametrize(("beside_s", "met"), [(0.014, True), (0.016, False)])
def test_steps_beside_a_load_are_held_against_those_of_blocks_without(beside_s: float, met: bool) -> None:  # noqa: FBT001
    all_notes = np.concatenate(
        [
            notes(0, 0.010, swapping=False),
            notes(4, beside_s, swapping=True),
            notes(10, 0.010, swapping=False),
            notes(100, 1.0, swapping=False),  # outside of both
        ]
    )
    found = judged(all_notes, [block(0, swaps=3), block(10, swaps=0)])
    assert found["met"] is met
    assert found["p99_ratio_during_to_without"] == pytest.approx(beside_s / 0.010)
    assert found["ms_per_step"]["during"]["decode"] == pytest.approx(beside_s * 500)  # type: ignore[index]


def test_what_no_stage_claims_is_the_rest() -> None:
    parts = parts_ms(notes(0, 0.010, swapping=False))
    assert parts == pytest.approx({**dict.fromkeys(map(str, STAGES), 0.0), "decode": 5.0, "rest": 5.0})
    assert parts_ms(np.zeros((0, len(COLUMNS)))) == {}


def test_the_worker_notes_the_stages_of_each_step_apart() -> None:
    tallies = NotedTallies()
    tallies.stage(Stage.POLL, 1.0)
    tallies.stage(Stage.POLL, 0.5)
    tallies.stage(Stage.ENGINE, 9.0)  # beside the loop
    tallies.step(2.0, swapping=True)
    tallies.step(1.0, swapping=False)
    first, second = np.asarray(tallies.notes).reshape(-1, len(COLUMNS))
    assert dict(zip(COLUMNS[1:], first[1:], strict=True)) == {
        **dict.fromkeys(COLUMNS[1:], 0.0),
        "seconds": 2.0,
        "swapping": 1.0,
        "poll": 1.5,
    }
    assert second[2:].tolist() == [0.0] * (len(COLUMNS) - 2)
