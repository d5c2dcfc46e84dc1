"""How long the loop's steps took, in blocks with swaps and without, and where in a step the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.spread import quantiles, spread
from worker.statistics import Stage

LIMIT: Final = 1.5
STAGES: Final = (Stage.POLL, Stage.DECODE, Stage.GUARD, Stage.ENCODE, Stage.PRODUCE, Stage.COMMIT)
"""Those that the loop spends its own time in. The engine's runs beside it: what waiting for it and calling it take is in the rest."""
COLUMNS: Final = ("ended_s", "seconds", "swapping", *STAGES)
"""Of the notes, float64[steps, columns]: when a step ended (monotonic), how long it took without waiting for records, 1 during a swap,
seconds by stage.
"""
_SECONDS: Final = COLUMNS.index("seconds")
_SWAPPING: Final = COLUMNS.index("swapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One stretch of the run, monotonic seconds. swaps: in it; late: of these, not done within their time, and waited for."""

    swaps: int
    late: int
    began_s: float
    ended_s: float
    load: float
    lag_at_end: int


def judged(notes: NDArray[np.float64], blocks: Sequence[Block]) -> dict[str, object]:
    """Step times by block, and whether those beside a load are as short as they have to be. notes: see `COLUMNS`."""
    shown, pooled = [], {"swaps": [], "during": [], "without": []}  # type: ignore[var-annotated]
    for block in blocks:
        inside = notes[(notes[:, 0] > block.began_s) & (notes[:, 0] <= block.ended_s)]
        during = inside[inside[:, _SWAPPING] == 1]
        pooled["swaps" if block.swaps else "without"].append(inside)
        pooled["during"].append(during)
        seconds = inside[:, _SECONDS]
        busy = float(seconds.sum() / (block.ended_s - block.began_s))
        shown.append(
            {**asdict(block), "busy": busy, "all": quantiles(seconds), "during": quantiles(during[:, _SECONDS])}
        )
    joined = {kind: np.concatenate(values) for kind, values in pooled.items()}
    steps = {kind: quantiles(values[:, _SECONDS]) for kind, values in joined.items()}
    return {
        "steps_s": steps,
        "ms_per_step": {kind: parts_ms(values) for kind, values in joined.items()},
        "ms_per_slowest_step": {kind: parts_ms(_slowest(values)) for kind, values in joined.items()},
        "p99_ratio_during_to_without": steps["during"]["p99"] / steps["without"]["p99"],
        "p99_ratio_blocks": steps["swaps"]["p99"] / steps["without"]["p99"],
        "p99_ratio_during_to_without_by_pair": spread(_ratios(shown)),
        "p99_s_by_block": [entry["all"]["p99"] for entry in shown],
        "blocks": shown,
        "met": steps["during"]["p99"] <= LIMIT * steps["without"]["p99"],
    }


def parts_ms(notes: NDArray[np.float64]) -> Mapping[str, float]:
    """What a step took on average, by stage; `rest` is what no stage claims: waiting for the engine, calls to it, gathering.

    Of a worker that never runs out of records: `Stage.POLL` includes waiting for these, a step's seconds don't.
    """
    if not len(notes):
        return {}
    means_ms = dict(zip(COLUMNS, notes.mean(axis=0) * 1e3, strict=True))
    stages = {str(stage): float(means_ms[stage]) for stage in STAGES}
    return {**stages, "rest": float(means_ms["seconds"]) - sum(stages.values())}


def _slowest(notes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The slowest fiftieth: the steps around the 99th percentile and beyond."""
    seconds = notes[:, _SECONDS]
    return notes[seconds >= np.quantile(seconds, 0.98)] if len(notes) else notes


def _ratios(shown: Sequence[Mapping[str, object]]) -> list[float]:
    """P99 beside a load to P99 without, of each pair of blocks."""
    ratios = []
    for first, second in zip(shown[::2], shown[1::2], strict=True):
        with_swaps, without = (first, second) if first["swaps"] else (second, first)
        ratios.append(with_swaps["during"]["p99"] / without["all"]["p99"])  # type: ignore[index]
    return ratios
