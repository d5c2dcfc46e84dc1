"""What simulated CUDA is made of: errors, memory blocks, streams and events. See `simulated_cuda`."""
# ruff: noqa: N815 - the names are CUDA's

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]

POISON = 0xFF
GAP = 1 << 20
"""Between two device blocks, so that running over the end of one doesn't hit the next."""


class MisuseError(AssertionError):
    """The code under test did what CUDA leaves undefined."""


class Error(enum.IntEnum):
    """Some of `cudaError_t`."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchOutOfResources = 701
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class MemcpyKind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(enum.Enum):
    cudaStreamCaptureModeThreadLocal = 1


OK = (Error.cudaSuccess,)


@dataclass(eq=False)
class Block:
    address: int
    data: NDArray[np.uint8]


@dataclass(eq=False)
class FakeStream:
    queue: deque[tuple[object, Work]] = field(default_factory=deque)
    """What is to be done, and for whom."""
    captured: list[tuple[object, Work]] | None = None
    invalid: bool = False

    def add(self, owner: object, work: Work) -> None:
        (self.queue if self.captured is None else self.captured).append((owner, work))

    def run(self, steps: int | None = None) -> None:
        while self.queue and steps != 0:
            self.queue.popleft()[1]()
            steps = None if steps is None else steps - 1


@dataclass(eq=False)
class FakeEvent:
    recorded: int = 0
    happened: int = 0
    stream: FakeStream | None = None
