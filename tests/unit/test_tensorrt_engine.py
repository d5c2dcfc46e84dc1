"""The TensorRT engine on fake CUDA, beyond what every engine promises: graphs, padding, overlap, waiting, failures, closing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog.testing
from numpy.typing import NDArray

from tests.helpers.engines import expected_forecasts
from tests.helpers.gpu_engines import HORIZON, QUANTILES, FakeGpu, PlanFolder
from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_cuda_parts import Error
from worker.engine import Engine, Slot
from worker.errors import EngineError, FatalEngineError
from worker.tensorrt_engine import PAUSE_S


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def folder(tmp_path: Path) -> PlanFolder:
    return PlanFolder(tmp_path / "1", profiles=((1, 8, 200),), graph_rows=(2, 8))


def filled(engine: Engine, rows: int, seed: int = 0) -> Slot:
    slot = engine.acquire()
    assert slot is not None
    random = np.random.default_rng(seed)
    for column in slot.columns.values():
        column[:] = np.nan
        column[:rows] = random.uniform(0.0, 50.0, column[:rows].shape)
    return slot


def wanted(slot: Slot, rows: int) -> NDArray[np.float32]:
    return expected_forecasts(slot.columns, rows, horizon=HORIZON, quantiles=QUANTILES)


@pytest.mark.parametrize(("rows", "run"), [(1, 2), (2, 2), (3, 8), (8, 8)])
def test_a_listed_size_is_launched_as_a_graph_its_padding_zeroed(
    gpu: FakeGpu, folder: PlanFolder, rows: int, run: int
) -> None:
    engine = folder.load(gpu)
    gpu.fake.log.clear()
    gpu.tensorrt.executed.clear()
    slot = filled(engine, rows)
    expected = wanted(slot, rows)
    values = engine.collect(engine.submit(slot, rows)).values
    assert gpu.fake.log == ["launch graph"]
    (inputs,) = gpu.tensorrt.executed
    assert all(len(column) == run for column in inputs.values())
    assert all((column[rows:] == 0.0).all() for column in inputs.values())
    assert values.shape == (rows, HORIZON, len(QUANTILES))
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_other_sizes_are_run_as_they_are(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    gpu.fake.log.clear()
    gpu.tensorrt.executed.clear()
    engine.collect(engine.submit(filled(engine, 9), 9))
    assert gpu.fake.log == []
    assert [len(inputs["price"]) for inputs in gpu.tensorrt.executed] == [9]


@pytest.mark.parametrize("rows", [200, 180, 178])
def test_full_batches_and_nearly_full_ones_are_launched_as_a_graph_that_nobody_listed(
    gpu: FakeGpu, folder: PlanFolder, rows: int
) -> None:
    engine = folder.load(gpu)
    gpu.fake.log.clear()
    slot = filled(engine, rows)
    expected = wanted(slot, rows)
    np.testing.assert_allclose(engine.collect(engine.submit(slot, rows)).values, expected, rtol=1e-5)
    assert gpu.fake.log == ["launch graph"]


def test_tensorrt_rtx_gets_the_listed_graphs_only(gpu: FakeGpu, folder: PlanFolder) -> None:
    """It goes on to faster kernels while it runs, which a graph would keep it from."""
    engine = folder.load(gpu, plan=folder.plan.model_copy(update={"runtime": "tensorrt_rtx"}))
    gpu.fake.log.clear()
    for rows in (8, 200):
        slot = filled(engine, rows)
        engine.collect(engine.submit(slot, rows))
        engine.release(slot)
    assert gpu.fake.log == ["launch graph"]


def test_a_batch_below_the_profile_is_padded_up_to_it(gpu: FakeGpu, tmp_path: Path) -> None:
    engine = PlanFolder(tmp_path / "1", profiles=[(4, 8, 16)]).load(gpu)
    gpu.tensorrt.executed.clear()
    slot = filled(engine, 3)
    expected = wanted(slot, 3)
    np.testing.assert_allclose(engine.collect(engine.submit(slot, 3)).values, expected, rtol=1e-5)
    assert (gpu.tensorrt.executed[0]["price"][3:] == 0.0).all()


def test_a_shape_is_set_only_when_it_changes(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu, slots=1)
    for rows, sets in ((9, 2), (9, 0), (10, 2), (2, 0), (10, 0)):
        before = gpu.tensorrt.shapes_set
        slot = filled(engine, rows)
        engine.collect(engine.submit(slot, rows))
        engine.release(slot)
        assert gpu.tensorrt.shapes_set - before == sets


def test_submitting_does_not_wait(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    gpu.tensorrt.executed.clear()
    tickets = [engine.submit(filled(engine, rows, rows), rows) for rows in (9, 10)]
    assert gpu.tensorrt.executed == []
    assert not engine.wait(tickets[0], 0.0)
    assert engine.acquire() is None
    assert [len(engine.collect(ticket).values) for ticket in tickets] == [9, 10]


def test_waiting_ends_at_its_time_and_sleeps_in_between(folder: PlanFolder) -> None:
    gpu = FakeGpu(FakeCuda(steps_per_query=0))  # a GPU that never gets on
    engine = folder.load(gpu)
    ticket = engine.submit(filled(engine, 9), 9)
    before_s = gpu.clock()
    queries = len(gpu.api.calls)
    assert not engine.wait(ticket, 100.5 * PAUSE_S)
    assert gpu.clock() - before_s == pytest.approx(100.5 * PAUSE_S)
    assert gpu.api.calls[queries:] == ["cudaEventQuery"] * 102
    engine.close()


def test_waiting_ends_when_the_batch_is_done(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    first = engine.submit(filled(engine, 9), 9)
    before_s = gpu.clock()
    assert engine.wait(first, 60.0)
    assert gpu.clock() - before_s == pytest.approx(4 * PAUSE_S)  # of 5 steps: two uploads, run, download, event
    calls = len(gpu.api.calls)
    engine.collect(first)
    assert gpu.api.calls[calls:] == []  # it is known to be done


def test_a_failure_seen_while_waiting_is_told_when_collecting(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    slot = filled(engine, 9)
    ticket = engine.submit(slot, 9)
    gpu.api.fail(Error.cudaErrorLaunchOutOfResources, name="cudaEventQuery")
    assert engine.wait(ticket, 60.0)
    assert engine.wait(ticket, 0.0)
    with pytest.raises(EngineError, match="cudaErrorLaunchOutOfResources"):
        engine.collect(ticket)
    engine.release(slot)
    again = filled(engine, 4)
    expected = wanted(again, 4)
    np.testing.assert_allclose(engine.collect(engine.submit(again, 4)).values, expected, rtol=1e-5)
    engine.close()
    gpu.assert_empty()


def test_a_batch_that_fails_while_it_is_submitted_is_out_of_the_gpus_hands(gpu: FakeGpu, folder: PlanFolder) -> None:
    """The copies before the failure were under way: they must be over when the slot is the caller's again."""
    engine = folder.load(gpu)
    slot = filled(engine, 9)
    gpu.tensorrt.refuse = len(gpu.tensorrt.calls) + 2  # two shapes are set, then it is run
    with pytest.raises(EngineError, match="running 9 rows: execute_async_v3 was refused"):
        engine.submit(slot, 9)
    assert not any(stream.queue for stream in gpu.fake.streams.values())
    expected = wanted(slot, 9)
    np.testing.assert_allclose(engine.collect(engine.submit(slot, 9)).values, expected, rtol=1e-5)
    engine.release(slot)


@pytest.mark.parametrize("rows", [2, 9])
def test_any_failing_call_of_a_batch_is_told_and_the_next_batch_is_right(
    gpu: FakeGpu, folder: PlanFolder, rows: int
) -> None:
    engine = folder.load(gpu)
    begin = len(gpu.api.calls)
    slot = filled(engine, rows)
    engine.collect(engine.submit(slot, rows))
    engine.release(slot)
    for at in range(len(gpu.api.calls) - begin):
        slot = filled(engine, rows, at)
        gpu.api.fail(Error.cudaErrorInvalidValue, at=len(gpu.api.calls) + at)
        with pytest.raises(EngineError, match="cudaErrorInvalidValue"):
            engine.collect(engine.submit(slot, rows))
        expected = wanted(slot, rows)
        np.testing.assert_allclose(engine.collect(engine.submit(slot, rows)).values, expected, rtol=1e-5)
        engine.release(slot)
    engine.close()
    gpu.assert_empty()


def test_a_lost_gpu_is_fatal_wherever_it_shows(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    slot = filled(engine, 9)
    ticket = engine.submit(slot, 9)
    gpu.api.fail(Error.cudaErrorIllegalAddress, name="cudaEventQuery")
    assert engine.wait(ticket, 1.0)
    with pytest.raises(FatalEngineError, match="context is lost"):
        engine.collect(ticket)
    with pytest.raises(FatalEngineError, match="context is lost"):
        engine.submit(slot, 9)
    with structlog.testing.capture_logs() as logs:
        engine.close()
    assert logs[0]["event"] == "the GPU's last work failed while the engine was closed"


def test_closing_waits_for_what_is_under_way_and_gives_everything_back(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu, slots=3)
    assert gpu.fake.used_bytes > 0
    for rows in (2, 9, 16):
        engine.submit(filled(engine, rows), rows)
    engine.close()
    engine.close()
    gpu.assert_empty()
    assert gpu.fake.used_bytes == 0
    assert engine.acquire() is None


def test_any_failing_call_of_closing_is_logged_and_the_rest_is_freed(folder: PlanFolder) -> None:
    gpu = FakeGpu()
    engine = folder.load(gpu)
    begin = len(gpu.api.calls)
    engine.close()
    for at in range(len(gpu.api.calls) - begin):
        gpu = FakeGpu()
        engine = folder.load(gpu)
        gpu.api.fail(Error.cudaErrorInvalidValue, at=len(gpu.api.calls) + at)
        with structlog.testing.capture_logs() as logs:
            engine.close()
        assert len(logs) == 1
        assert "cudaErrorInvalidValue" in logs[0]["error"]
        assert gpu.fake.left <= 1
        assert not gpu.fake.misuses


def test_loading_and_closing_again_and_again_leaves_nothing(gpu: FakeGpu, folder: PlanFolder) -> None:
    for number in range(20):
        engine = folder.load(gpu)
        engine.collect(engine.submit(filled(engine, 1 + number % 16), 1 + number % 16))
        engine.close()
        gpu.assert_empty()
