"""Measures a plan on the GPU it was built for: latency at several batch sizes, throughput, device memory.

Between CUDA events, inputs on the device, warm, over several sets of buffers in turn: the plan's own time, without copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from engine_build.prove import FloatArray
from schemas.engine_card import Profile

_SIZES: Final = (1, 64, 512, 2048, 8192)
_WARM_UP: Final = 20
_REPEATS: Final = 200
"""Enough that the 99th percentile isn't the maximum."""
_BACK_TO_BACK: Final = 50


class Timed(Protocol):
    """What runs the plan, with a clock on the device."""

    @property
    def device_memory_bytes(self) -> int:
        """What loading the plan took of the device's memory."""
        ...

    @property
    def sets(self) -> int:
        """How many sets of inputs there are to fill."""
        ...

    def fill(self, index: int, inputs: Mapping[str, FloatArray]) -> None:
        """Set number `index` of the inputs, float32[rows, ...] by name."""
        ...

    def latencies_s(self, rows: int, repeats: int) -> Sequence[float]:
        """Seconds of each of `repeats` single passes."""
        ...

    def back_to_back_s(self, rows: int, passes: int) -> float:
        """Seconds of `passes` passes without a pause."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Times at one batch size. rows_per_s: passes back to back."""

    rows: int
    median_s: float
    p99_s: float
    rows_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """points: by batch size, ascending. rows_per_s: at the profile's opt rows, which decides between precisions."""

    points: tuple[Point, ...]
    rows_per_s: float
    device_memory_bytes: int


def sizes_of(profile: Profile) -> tuple[int, ...]:
    """The batch sizes to measure, ascending: the profile's own and some usual ones between."""
    own = (profile.min_rows, profile.opt_rows, profile.max_rows)
    usual = (rows for rows in _SIZES if profile.min_rows <= rows <= profile.max_rows)
    return tuple(sorted({*own, *usual}))


def measure(runner: Timed, inputs: Mapping[str, FloatArray], profile: Profile) -> Measurement:
    """Time `runner` at `sizes_of(profile)`. inputs: real rows, float32[rows, ...]; repeated up to the largest batch."""
    for index in range(runner.sets):
        shifted = {name: np.roll(values, index, axis=0) for name, values in inputs.items()}
        runner.fill(
            index,
            {name: np.resize(values, (profile.max_rows, *values.shape[1:])) for name, values in shifted.items()},
        )
    points = tuple(_point(runner, rows) for rows in sizes_of(profile))
    (decisive,) = (point.rows_per_s for point in points if point.rows == profile.opt_rows)
    return Measurement(points=points, rows_per_s=decisive, device_memory_bytes=runner.device_memory_bytes)


def _point(runner: Timed, rows: int) -> Point:
    runner.latencies_s(rows, _WARM_UP)  # the first passes after a change of shape are slow
    times_s = np.asarray(runner.latencies_s(rows, _REPEATS))
    total_s = runner.back_to_back_s(rows, _BACK_TO_BACK)
    return Point(
        rows=rows,
        median_s=float(np.median(times_s)),
        p99_s=float(np.quantile(times_s, 0.99)),
        rows_per_s=rows * _BACK_TO_BACK / total_s,
    )
