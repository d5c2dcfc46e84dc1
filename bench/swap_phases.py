"""What a version's loading does to the steps beside it, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.spread import quantiles
from worker.loading import Loader
from worker.model_status import Phase

NO_PHASE = "none"


@dataclass(slots=True)
class Phases:
    """The phases that a loader went through: name, began and ended, `time.perf_counter()` seconds. They don't overlap."""

    found: list[tuple[str, float, float]] = field(default_factory=list)

    def watch(self, loader: Loader) -> None:
        """Write down what `loader` goes through from now on, beside whoever is told already."""
        told = loader.timed

        def timed(phase: Phase, seconds: float) -> None:
            ended_s = time.perf_counter()
            self.found.append((str(phase), ended_s - seconds, ended_s))
            told(phase, seconds)

        loader.timed = timed


def steps_by_phase(
    began_s: Sequence[float], seconds: Sequence[float], phases: Sequence[tuple[str, float, float]]
) -> dict[str, dict[str, float]]:
    """Name of a phase, or "none" -> `quantiles` of the steps that had their middle in it; phases without any are left out.

    began_s, seconds: of each step. phases: as `Phases` has them, in any order.
    """
    middles, took = np.asarray(began_s) + np.asarray(seconds) / 2, np.asarray(seconds)
    names = np.full(len(took), NO_PHASE, dtype=object)
    for name, first_s, last_s in phases:
        names[(middles >= first_s) & (middles < last_s)] = name
    wanted = dict.fromkeys((NO_PHASE, *(each for each, _, _ in phases)))
    return {name: quantiles(took[names == name]) for name in wanted if (names == name).any()}
