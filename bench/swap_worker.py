"""The worker's own command in a process that has a simulated GPU: `python -m bench.swap_worker STEPS run --config FILE`.

The GPU is of another type than the plans that the benchmark publishes, so a version with plans finds none that fits; versions
without plans run in ONNX Runtime, as anywhere. STEPS: a file for every step of the loop, float64[steps, 3]: when it ended
(monotonic seconds), how long it took without waiting for records, 1 during a swap; `-` keeps no such notes.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.helpers.gpu_engines import FakeGpu
from tests.helpers.simulated_cuda import FakeCuda
from worker import compose_worker, plan_loading
from worker.__main__ import main as worker_main
from worker.statistics import Tallies

CAPABILITY = (7, 5)


class NotedTallies(Tallies):
    """The worker's own counters, which also note every step."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = array("d")

    def step(self, seconds: float, *, swapping: bool) -> None:
        """See `Tallies.step`."""
        super().step(seconds, swapping=swapping)
        self.notes.extend((time.monotonic(), seconds, float(swapping)))


def main(arguments: Sequence[str]) -> int:
    """Run the worker; write the notes when it has ended."""
    steps, *command = arguments
    gpu = FakeGpu(fake=FakeCuda(capability=CAPABILITY))
    here = partial(plan_loading.Machine, cuda=lambda: gpu.cuda, library=lambda _: gpu.device.library)
    tallies = Tallies() if steps == "-" else NotedTallies()
    # What the settings can't replace by something of the benchmark's own.
    with patch.object(compose_worker, "Tallies", lambda: tallies), patch.object(plan_loading, "Machine", here):
        code = worker_main(command)
    if isinstance(tallies, NotedTallies):
        np.save(Path(steps), np.asarray(tallies.notes).reshape(-1, 3))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
