"""Device and host memory after many loads, and after many loads that failed, are what they were."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine_build.trt_types import BuildRequest
from tests.gpu.test_tensorrt_engine import forecast
from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.real_gpu import RealVersion, builder
from worker.errors import EngineError
from worker.tensorrt_load import Device

WARM_ROUNDS = 10
"""Before the baseline: CUDA and TensorRT load code lazily and keep it."""
ROUNDS = 200
BUILD_ROUNDS = int(os.environ.get("GPU_BUILD_ROUNDS", "20"))
FAILURES = 50
TOLD_EVERY = 25
TOLERANCE = 0.01
INVALID_VALUE = 1


@dataclass(frozen=True)
class Held:
    """Bytes in use."""

    device: int
    host: int

    @classmethod
    def now(cls, device: Device) -> Held:
        gc.collect()
        memory = device.cuda.memory()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(memory.total_bytes - memory.free_bytes, pages * 4096)

    def assert_like(self, before: Held) -> None:
        for name in ("device", "host"):
            was, now = getattr(before, name), getattr(self, name)
            assert abs(now - was) <= TOLERANCE * was, f"{name} memory was {was:,} bytes and is {now:,}"


def assert_flat(device: Device, turn: Callable[[int], None], rounds: int) -> None:
    for number in range(WARM_ROUNDS):
        turn(number)
    before, began_s = Held.now(device), time.monotonic()
    for number in range(1, rounds + 1):
        turn(number - 1)
        if number % TOLD_EVERY == 0 or number == rounds:
            took_s = time.monotonic() - began_s
            print(f"{number} rounds in {took_s:.0f} s: {before} -> {Held.now(device)}", flush=True)  # noqa: T201 - by -s
    Held.now(device).assert_like(before)


def test_loading_and_closing_again_and_again(version: RealVersion, device: Device) -> None:
    def turn(number: int) -> None:
        engine = version.load(device, slots=3, max_rows=512)
        forecast(engine, 1 + 37 * number % 512)
        engine.close()

    assert_flat(device, turn, ROUNDS)


def test_building_loading_and_closing(version: RealVersion, device: Device) -> None:
    """A builder in the same process, as few services have it; a worker builds in another one.

    Another builder stays all the while, else TensorRT loads its kernels' library anew for each.
    """
    spare = builder()._builder()
    graph = (version.folder / "model.onnx").read_bytes()
    request = BuildRequest(
        source="test",
        graph=graph,
        precision="fp32",
        profiles=version.plan.profiles,
        optimization_level=0,  # else a build takes seconds
    )

    def turn(number: int) -> None:
        assert builder().build(request).plan
        engine = version.load(device, max_rows=512)
        forecast(engine, 1 + number)
        engine.close()

    assert_flat(device, turn, BUILD_ROUNDS)
    del spare


def test_loads_that_fail_at_every_step(version: RealVersion, device: Device) -> None:
    api = device.cuda._api
    assert isinstance(api, FaultyCuda)
    begin = len(api.calls)
    engine = version.load(device)
    steps = len(api.calls) - begin
    engine.close()

    def turn(number: int) -> None:
        api.fail(INVALID_VALUE, at=len(api.calls) + number * steps // FAILURES)
        with suppress(EngineError):
            version.load(device).close()

    assert_flat(device, turn, FAILURES)


def test_plans_that_are_refused(version: RealVersion, device: Device) -> None:
    content = version.path.read_bytes()

    def turn(number: int) -> None:
        with pytest.raises(Exception, match="TensorRT"):
            device.library.load(content[: 100 + number])

    assert_flat(device, turn, FAILURES)
