"""Loading a plan: what is checked, in which words it is refused, and that a failure at any step leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.helpers.gpu_engines import HORIZON, INPUTS, QUANTILES, FakeGpu, PlanFolder, plan_of, right
from tests.helpers.simulated_cuda import FakeCuda
from tests.helpers.simulated_cuda_parts import Error
from tests.helpers.simulated_tensorrt import FakeTensorRt, fake_plan
from worker.errors import ContractError, EngineError, FatalEngineError, OutOfDeviceMemoryError
from worker.tensorrt_load import REST_S

GRAPHS = (2, 8)
OTHER = fake_plan(INPUTS, horizon=HORIZON, quantiles=QUANTILES, profiles=[(1, 8, 16)], version="8.5.3")


@pytest.fixture(params=[False, True], ids=["8.6", "10"])
def gpu(request: pytest.FixtureRequest) -> FakeGpu:
    return FakeGpu(modern=request.param)


@pytest.fixture
def folder(tmp_path: Path) -> PlanFolder:
    return PlanFolder(tmp_path / "1", graph_rows=GRAPHS)


def test_says_what_the_plan_is(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    spec = engine.spec
    assert (spec.model, spec.version, spec.precision, spec.digest) == ("tiny", "1", "fp16", folder.plan.sha256)
    assert (dict(spec.inputs), spec.horizon, spec.quantiles, spec.max_rows) == (INPUTS, HORIZON, QUANTILES, 16)
    engine.close()
    gpu.assert_empty()


def test_every_shape_was_run_before_the_first_batch(gpu: FakeGpu, folder: PlanFolder) -> None:
    folder.load(gpu)
    sizes = {len(inputs["price"]) for inputs in gpu.tensorrt.executed}
    assert sizes == {1, 8, 16, *GRAPHS}
    assert all((column == 0).all() for inputs in gpu.tensorrt.executed for column in inputs.values())


def test_all_contexts_share_one_scratch_memory(gpu: FakeGpu, folder: PlanFolder) -> None:
    folder.load(gpu, slots=3)
    scratch = [block for block in gpu.fake.device.values() if len(block.data) == 3000]
    assert len(scratch) == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 9, 16])
def test_computes(gpu: FakeGpu, folder: PlanFolder, rows: int) -> None:
    assert right(folder.load(gpu), rows)


def test_frees_in_the_reverse_order_of_making(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    gpu.fake.log.clear()
    engine.close()
    order = list(dict.fromkeys(gpu.fake.log))
    assert order == [
        *("destroy executable", "free context", "destroy event", "destroy stream", "free device memory"),
        *("free page-locked memory", "free weights"),
    ]
    gpu.assert_empty()


def test_rests_between_the_contexts_that_it_frees(gpu: FakeGpu, folder: PlanFolder) -> None:
    engine = folder.load(gpu)
    began_s = gpu.clock()
    engine.close()
    contexts = 1 + len((*GRAPHS, "full batches"))
    assert gpu.clock() - began_s == pytest.approx((contexts - 1) * REST_S)


# bad plans


def test_a_truncated_plan_is_refused_before_tensorrt_sees_it(gpu: FakeGpu, folder: PlanFolder) -> None:
    folder.path.write_bytes(folder.content[:-100])
    with pytest.raises(ContractError, match=r"fake\.plan: sha256 is .* its card says .* publish it again"):
        folder.load(gpu)
    assert gpu.tensorrt.calls == []


def test_a_flipped_bit_is_found_before_tensorrt_sees_it(gpu: FakeGpu, folder: PlanFolder) -> None:
    changed = bytearray(folder.content)
    changed[len(changed) // 2] ^= 1
    folder.path.write_bytes(changed)
    with pytest.raises(ContractError, match="the file is damaged or was replaced"):
        folder.load(gpu)
    assert gpu.tensorrt.calls == []


def test_a_missing_plan_is_named(gpu: FakeGpu, folder: PlanFolder) -> None:
    folder.path.unlink()
    with pytest.raises(ContractError, match=r"fake\.plan: can't be read: No such file"):
        folder.load(gpu)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "8.5.3"}, r"the plan is of version 8\.5\.3, this library is 8\.6\.1"),
        ({"capability": "8.0"}, r"the plan is for compute 8\.0, this device is compute 9\.0"),
    ],
)
def test_a_plan_for_something_else_is_refused_in_tensorrts_words_with_a_remedy(
    gpu: FakeGpu, folder: PlanFolder, changes: dict[str, Any], said: str
) -> None:
    content = fake_plan(INPUTS, horizon=HORIZON, quantiles=QUANTILES, profiles=[(1, 8, 16)], **changes)
    folder.path.write_bytes(content)
    with pytest.raises(
        ContractError, match=rf"refuses the plan on Fake GPU \(compute capability 9\.0\).*{said}.*`engine-build build`"
    ):
        folder.load(gpu, plan=plan_of(content))
    gpu.assert_empty()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": {"sales": 30, "colour": None}}, "input 'colour': no field of that name"),
        ({"inputs": {"sales": 30, "price": 4}}, "input 'price'.*must be an array"),
        ({"horizon": 5}, r"output: got 'forecast' float32\[batch, 5, 3\], expected 'forecast' float32\[batch, 3, 3\]"),
        ({"dtype": "HALF"}, "got dtype float16, expected float32"),
    ],
)
def test_a_plan_that_does_not_fit_schema_or_card_is_refused(
    gpu: FakeGpu, folder: PlanFolder, changes: dict[str, Any], said: str
) -> None:
    kept: dict[str, Any] = {
        "inputs": INPUTS,
        "horizon": HORIZON,
        "quantiles": QUANTILES,
        "profiles": [(1, 8, 16)],
        **changes,
    }
    content = fake_plan(**kept)
    folder.path.write_bytes(content)
    with pytest.raises(ContractError, match=rf"(?s)fake\.plan: .*{said}"):
        folder.load(gpu, plan=plan_of(content))
    gpu.assert_empty()


def test_a_batch_above_the_profile_is_refused_with_a_remedy(gpu: FakeGpu, folder: PlanFolder) -> None:
    with pytest.raises(ContractError, match=r"got 17, the plan's profiles take 16 at most; lower batching\.max_rows"):
        folder.load(gpu, max_rows=17)
    gpu.assert_empty()


# too little memory


def test_weights_that_do_not_fit_say_so(folder: PlanFolder) -> None:
    gpu = FakeGpu(FakeCuda(total_bytes=4000))
    with pytest.raises(
        OutOfDeviceMemoryError, match=r"OutOfMemory.*0\.0 of 0\.0 MiB device memory are free: take other"
    ):
        folder.load(gpu)
    gpu.assert_empty()


def test_batches_that_do_not_fit_say_so(folder: PlanFolder) -> None:
    gpu = FakeGpu(FakeCuda(total_bytes=7000))
    with pytest.raises(
        OutOfDeviceMemoryError, match=r"MiB of device memory can't be had: .*are free; lower batching\.max_rows"
    ):
        folder.load(gpu)
    gpu.assert_empty()


@pytest.mark.parametrize("total_bytes", range(4500, 16000, 500))
def test_too_little_memory_never_leaves_anything(folder: PlanFolder, total_bytes: int) -> None:
    gpu = FakeGpu(FakeCuda(total_bytes=total_bytes))
    try:
        engine = folder.load(gpu)
    except OutOfDeviceMemoryError:
        pass
    else:
        assert right(engine, 3)
        engine.close()
    gpu.assert_empty()


# a failure at any step


def calls_of_a_load(folder: PlanFolder, gpu: FakeGpu) -> tuple[int, int]:
    """To CUDA, to TensorRT."""
    engine = folder.load(gpu)
    calls = len(gpu.api.calls), len(gpu.tensorrt.calls)
    engine.close()
    return calls


def load_and_try(folder: PlanFolder, gpu: FakeGpu) -> Exception | None:
    """Load, compute, close; the error of loading, if there was one."""
    try:
        engine = folder.load(gpu)
    except (EngineError, ContractError) as error:
        return error
    assert right(engine, 3)
    engine.close()
    return None


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("code", [Error.cudaErrorInvalidValue, Error.cudaErrorMemoryAllocation])
def test_any_failing_cuda_call_leaves_nothing_behind(folder: PlanFolder, code: Error, *, modern: bool) -> None:
    calls, _ = calls_of_a_load(folder, FakeGpu(modern=modern))
    survived = 0
    for at in range(calls):
        gpu = FakeGpu(modern=modern)
        gpu.api.fail(code, at=at)
        with structlog.testing.capture_logs() as logs:
            error = load_and_try(folder, gpu)
        assert not isinstance(error, FatalEngineError)
        survived += error is None
        if any("couldn't free" in line["event"] for line in logs):  # that one is left, and nothing else
            assert (gpu.fake.left, gpu.fake.misuses) == (1, [])
        else:
            gpu.assert_empty()
    assert 0 < survived < calls


@pytest.mark.parametrize("modern", [False, True])
def test_any_refusal_of_tensorrt_leaves_nothing_behind(folder: PlanFolder, *, modern: bool) -> None:
    _, calls = calls_of_a_load(folder, FakeGpu(modern=modern))
    refused = 0
    for at in range(calls):
        gpu = FakeGpu(modern=modern)
        gpu.tensorrt.refuse = at
        with structlog.testing.capture_logs():
            error = load_and_try(folder, gpu)
        assert error is None or "was refused" in str(error)
        refused += error is not None
        gpu.assert_empty()
    assert refused > 10


def test_a_lost_context_is_fatal_at_any_step_and_frees_without_raising(folder: PlanFolder) -> None:
    calls, _ = calls_of_a_load(folder, FakeGpu())
    for at in range(calls):
        gpu = FakeGpu()
        gpu.api.fail(Error.cudaErrorIllegalAddress, at=at)
        with structlog.testing.capture_logs():
            error = load_and_try(folder, gpu)
        assert isinstance(error, FatalEngineError)
        assert not gpu.fake.misuses


# plans that can't do everything


def test_a_library_is_known_by_what_it_offers() -> None:
    assert not hasattr(FakeTensorRt(FakeCuda()), "ExecutionContextAllocationStrategy")
    assert hasattr(FakeTensorRt(FakeCuda(), modern=True), "ExecutionContextAllocationStrategy")
