"""The worker's own command, with notes of its steps: `python -m bench.swap_worker GPU STEPS run --config FILE`.

GPU: `real`, or `simulated`: one of another type than the plans that the benchmark publishes, so a version with plans finds none that
fits; versions without plans run in ONNX Runtime, as anywhere. STEPS: a file of notes of every step of the loop, see `swap_steps.COLUMNS`; `-` keeps none.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bench.swap_steps import COLUMNS, STAGES
from tests.helpers.gpu_engines import FakeGpu
from tests.helpers.simulated_cuda import FakeCuda
from worker import compose_worker, plan_loading
from worker.__main__ import main as worker_main
from worker.statistics import Stage, Tallies

CAPABILITY = (7, 5)


class NotedTallies(Tallies):
    """The worker's own counters, which also note every step."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = array("d")
        self._spent_s = dict.fromkeys(STAGES, 0.0)

    def stage(self, stage: Stage, seconds: float) -> None:
        """See `Tallies.stage`."""
        super().stage(stage, seconds)
        if stage in self._spent_s:
            self._spent_s[stage] += seconds

    def step(self, seconds: float, *, swapping: bool) -> None:
        """See `Tallies.step`."""
        super().step(seconds, swapping=swapping)
        self.notes.extend((time.monotonic(), seconds, float(swapping), *self._spent_s.values()))
        self._spent_s = dict.fromkeys(STAGES, 0.0)


def simulated() -> Callable[..., plan_loading.Machine]:
    """Makes machines with a GPU of `CAPABILITY`."""
    gpu = FakeGpu(fake=FakeCuda(capability=CAPABILITY))
    return partial(plan_loading.Machine, cuda=lambda: gpu.cuda, library=lambda _: gpu.device.library)


def main(arguments: Sequence[str]) -> int:
    """Run the worker; write the notes when it has ended."""
    gpu, steps, *command = arguments
    tallies = Tallies() if steps == "-" else NotedTallies()
    # What the settings can't replace by something of the benchmark's own.
    with ExitStack() as patches:
        patches.enter_context(patch.object(compose_worker, "Tallies", lambda: tallies))
        if gpu == "simulated":
            patches.enter_context(patch.object(plan_loading, "Machine", simulated()))
        code = worker_main(command)
    if isinstance(tallies, NotedTallies):
        np.save(Path(steps), np.asarray(tallies.notes).reshape(-1, len(COLUMNS)))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
