from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from engine_build.measure import measure, sizes_of
from engine_build.prove import FloatArray
from schemas.engine_card import Profile

PROFILE = Profile(min_rows=2, opt_rows=100, max_rows=600)


class FakeTimed:
    """A pass takes 1 ms and 10 µs a row; every hundredth takes ten times as long; back to back, half."""

    device_memory_bytes = 7
    sets = 3

    def __init__(self) -> None:
        self.filled: dict[int, Mapping[str, FloatArray]] = {}
        self.passes: list[int] = []

    def fill(self, index: int, inputs: Mapping[str, FloatArray]) -> None:
        self.filled[index] = inputs

    def latencies_s(self, rows: int, repeats: int) -> Sequence[float]:
        self.passes.append(rows)
        usual = 0.001 + 1e-5 * rows
        return [usual * (10 if turn % 50 == 49 else 1) for turn in range(repeats)]

    def back_to_back_s(self, rows: int, passes: int) -> float:
        return passes * (0.001 + 1e-5 * rows) / 2


def test_sizes_are_the_profiles_own_and_usual_ones_within() -> None:
    assert sizes_of(PROFILE) == (2, 64, 100, 512, 600)
    assert sizes_of(Profile(min_rows=1, opt_rows=2048, max_rows=8192)) == (1, 64, 512, 2048, 8192)


def test_times_throughput_and_memory_are_told() -> None:
    runner = FakeTimed()
    found = measure(runner, {"x": np.arange(4, dtype=np.float32)}, PROFILE)
    assert [point.rows for point in found.points] == [2, 64, 100, 512, 600]
    opt = found.points[2]
    assert opt.median_s == pytest.approx(0.002)
    assert opt.p99_s == pytest.approx(0.02)
    assert opt.rows_per_s == pytest.approx(100 / 0.001)
    assert found.rows_per_s == opt.rows_per_s
    assert found.device_memory_bytes == 7


def test_inputs_differ_between_the_sets_and_every_size_is_warmed_up() -> None:
    runner = FakeTimed()
    measure(runner, {"x": np.arange(4, dtype=np.float32)}, PROFILE)
    assert {index: inputs["x"][:4].tolist() for index, inputs in runner.filled.items()} == {
        0: [0, 1, 2, 3],
        1: [3, 0, 1, 2],
        2: [2, 3, 0, 1],
    }
    assert all(len(inputs["x"]) == 600 for inputs in runner.filled.values())
    assert all(runner.passes.count(rows) == 2 for rows in sizes_of(PROFILE))
