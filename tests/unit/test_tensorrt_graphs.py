"""CUDA graphs and contexts of a plan's engine: who shares what, what is done without, and that all of it is proved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing

from tests.helpers.gpu_engines import FakeGpu, PlanFolder, right
from tests.helpers.simulated_cuda_parts import Error
from tests.helpers.simulated_tensorrt import FakeContext
from worker.proving import ProofError, prove, prove_sizes

GRAPHS = (2, 8)


@pytest.fixture(params=[False, True], ids=["8.6", "10"])
def gpu(request: pytest.FixtureRequest) -> FakeGpu:
    return FakeGpu(modern=request.param)


@pytest.fixture
def folder(tmp_path: Path) -> PlanFolder:
    return PlanFolder(tmp_path / "1", graph_rows=GRAPHS)


def test_slots_share_contexts(gpu: FakeGpu, folder: PlanFolder) -> None:
    made = []
    for slots in (1, 4):
        gpu.tensorrt.calls.clear()
        folder.load(gpu, slots=slots).close()
        made.append(sum(call.startswith("create_execution_context") for call in gpu.tensorrt.calls))
    assert made == [1 + len((*GRAPHS, "full batches"))] * 2


def test_what_the_engine_computes_without_a_graph_is_proved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the profile's own context is wrong; every size that the card lists, and the full batch, goes by a graph."""
    gpu, first, work = FakeGpu(), list[FakeContext](), FakeContext._work

    def wrong(context: FakeContext, *, captured: bool) -> Callable[[], None]:
        run = work(context, captured=captured)
        if not first:
            first.append(context)
        if context is not first[0]:
            return run
        address = context._addresses["forecast"]

        def spoilt() -> None:
            run()
            gpu.fake.floats(address, 1)[:] += 100.0

        return spoilt

    monkeypatch.setattr(FakeContext, "_work", wrong)
    folder = PlanFolder(tmp_path / "1", profiles=((2, 1536, 3840),), graph_rows=(64,))
    engine = folder.load(gpu, max_rows=1024)
    prove(engine, folder.card)
    with pytest.raises(ProofError, match="batch of 65 rows"):
        prove_sizes(engine, folder.card)
    engine.close()


def test_without_memory_for_a_graph_that_nobody_asked_for_the_engine_goes_without(folder: PlanFolder) -> None:
    gpu = FakeGpu()
    gpu.api.fail(Error.cudaErrorMemoryAllocation, name="cudaGraphInstantiate")  # the full batch's is the first
    with structlog.testing.capture_logs() as logs:
        engine = folder.load(gpu)
    assert [line["event"] for line in logs] == ["no CUDA graph of full batches"]
    assert all(right(engine, rows) for rows in (1, 8, 15, 16))
    gpu.fake.log.clear()
    assert right(engine, 8)
    assert gpu.fake.log == ["launch graph"]
    engine.close()
    gpu.assert_empty()


def test_a_graph_that_only_a_later_slot_can_not_have_leaves_all_slots_right(gpu: FakeGpu, folder: PlanFolder) -> None:
    gpu.api.fail(Error.cudaErrorInvalidValue, at=second_capture(folder, gpu), name="cudaStreamBeginCapture")
    with structlog.testing.capture_logs() as logs:
        engine = folder.load(gpu, slots=3)
    assert [(line["event"], line["rows"]) for line in logs] == [
        ("no further CUDA graphs: a batch can't be captured", 16)
    ]
    assert len(gpu.fake.executables) == 1
    prove_sizes(engine, folder.card)
    engine.close()
    gpu.assert_empty()


def second_capture(folder: PlanFolder, gpu: FakeGpu) -> int:
    """Which call to CUDA from here on begins the second capture of a load."""
    other = FakeGpu(modern=gpu.modern)
    folder.load(other, slots=3).close()
    _, second, *_ = (at for at, call in enumerate(other.api.calls) if call == "cudaStreamBeginCapture")
    return len(gpu.api.calls) + second


def test_a_plan_that_allows_one_context_per_profile_runs_without_graphs(tmp_path: Path) -> None:
    gpu = FakeGpu()
    folder = PlanFolder(tmp_path / "1", graph_rows=GRAPHS, plan_changes={"shared_profiles": False})
    with structlog.testing.capture_logs() as logs:
        engine = folder.load(gpu, slots=3)
    assert [line["event"] for line in logs] == ["the plan allows one context per profile: no CUDA graphs"]
    assert gpu.fake.executables == {}
    assert all(right(engine, rows) for rows in (1, 2, 16))
    slots = [engine.acquire() for _ in range(3)]
    tickets = []
    for number, slot in enumerate(slots):
        assert slot is not None
        for column in slot.columns.values():
            column[:4] = number + 1.0
        tickets.append(engine.submit(slot, 4))
    assert [float(engine.collect(ticket).values[0, 0, 0]) for ticket in tickets] == pytest.approx([2.1, 4.1, 6.1])
    engine.close()
    gpu.assert_empty()


def test_what_can_not_be_captured_runs_without_a_graph(gpu: FakeGpu, folder: PlanFolder) -> None:
    gpu.tensorrt.capturable = False
    with structlog.testing.capture_logs() as logs:
        engine = folder.load(gpu)
    assert [(line["event"], line["rows"]) for line in logs] == [
        ("no further CUDA graphs: a batch can't be captured", 16)
    ]
    assert all(right(engine, rows) for rows in (1, 2, 8))
    engine.close()
    gpu.assert_empty()
