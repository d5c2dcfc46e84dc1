"""The engine on a real GPU: numbers, graphs, profiles, and refusals in TensorRT's own words."""

from __future__ import annotations

import numpy as np
import pytest
import structlog.testing
from numpy.typing import NDArray

from tests.helpers.engines import expected_forecasts
from tests.helpers.real_gpu import RealVersion, plan_entry
from worker.engine import Engine, Ticket
from worker.errors import ContractError, OutOfDeviceMemoryError
from worker.tensorrt_load import Device, PlanMisfitError

MAX_ROWS = 512


def forecast(engine: Engine, rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Got and expected for one random batch; what lies beyond its rows is NaN."""
    slot = engine.acquire()
    assert slot is not None
    random = np.random.default_rng(seed)
    for column in slot.columns.values():
        column[:] = np.nan
        column[:rows] = random.uniform(0.0, 50.0, column[:rows].shape)
    expected = expected_forecasts(slot.columns, rows, horizon=3, quantiles=(0.1, 0.5, 0.9))
    values = engine.collect(engine.submit(slot, rows)).values.copy()
    engine.release(slot)
    return values, expected


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 16, 17, 63, 64, 65, 100, 511, MAX_ROWS])
def test_every_size_by_graph_or_not_is_right(version: RealVersion, device: Device, rows: int) -> None:
    engine = version.load(device, max_rows=MAX_ROWS)
    for seed in range(3):
        values, expected = forecast(engine, rows, seed)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    engine.close()


def test_nothing_is_amiss_while_it_loads(version: RealVersion, device: Device) -> None:
    """Every listed size has its graph: nothing had to be done without."""
    with structlog.testing.capture_logs() as logs:
        engine = version.load(device, slots=3, max_rows=MAX_ROWS)
    engine.close()
    assert logs == []


def test_batches_overlap_and_come_in_order(version: RealVersion, device: Device) -> None:
    engine = version.load(device, slots=4, max_rows=MAX_ROWS)
    random = np.random.default_rng(0)
    sizes = [int(rows) for rows in random.integers(1, MAX_ROWS, 200)]
    waiting: list[tuple[Ticket, NDArray[np.float32]]] = []
    for rows in sizes:
        slot = engine.acquire()
        if slot is None:
            ticket, expected = waiting.pop(0)
            assert engine.wait(ticket, 10.0)
            np.testing.assert_allclose(engine.collect(ticket).values, expected, rtol=1e-5)
            engine.release(ticket.slot)
            slot = engine.acquire()
            assert slot is not None
        for column in slot.columns.values():
            column[:rows] = random.uniform(0.0, 50.0, column[:rows].shape)
        expected = expected_forecasts(slot.columns, rows, horizon=3, quantiles=(0.1, 0.5, 0.9))
        waiting.append((engine.submit(slot, rows), expected))
    for ticket, expected in waiting:
        np.testing.assert_allclose(engine.collect(ticket).values, expected, rtol=1e-5)
    engine.close()


def test_a_plan_with_a_flipped_bit_is_refused_before_it_is_loaded(version: RealVersion, device: Device) -> None:
    content = bytearray(version.path.read_bytes())
    content[len(content) // 2] ^= 1
    version.path.write_bytes(content)
    with pytest.raises(ContractError, match="the file is damaged or was replaced"):
        version.load(device)


@pytest.mark.parametrize("kept", [0, 8, 1000])
def test_what_tensorrt_can_not_read_is_refused_in_its_words(version: RealVersion, device: Device, kept: int) -> None:
    """As if the card had been made for these bytes: the digest is right, the plan isn't one."""
    content = version.path.read_bytes()[:kept] or b"no plan"
    version.path.write_bytes(content)
    with pytest.raises(PlanMisfitError, match=r"refuses the plan on .*engine-build build"):
        version.load(device, plan=plan_entry(content, version.plan.profiles))
    engine_again_possible(version, device)


def engine_again_possible(version: RealVersion, device: Device) -> None:
    """The refusal has left the GPU usable."""
    fresh = RealVersion(version.folder.parent / "2", version.inputs, version.horizon, version.quantiles)
    engine = fresh.load(device)
    values, expected = forecast(engine, 5)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    engine.close()


def test_too_little_device_memory_says_so_and_leaves_the_gpu_usable(version: RealVersion, device: Device) -> None:
    held, size_bytes = [], device.cuda.memory().free_bytes
    while size_bytes > 0:
        try:
            held.append(device.cuda.allocate(size_bytes))
        except OutOfDeviceMemoryError:
            size_bytes //= 2
    try:
        with pytest.raises(OutOfDeviceMemoryError, match="memory"):
            version.load(device, max_rows=MAX_ROWS)
    finally:
        for address in held:
            device.cuda.free(address)
    engine_again_possible(version, device)
