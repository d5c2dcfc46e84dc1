from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from engine_build.errors import GraphError, NoImplementationError, OutOfMemoryError, PlanError
from engine_build.trt import Library, load_library
from engine_build.trt_types import BuildRequest
from schemas.engine_card import Profile
from schemas.plan_choice import PlanRuntime
from tests.helpers.fake_tensorrt import GENERATIONS, DataType, FakeTensorRT, Generation

PROFILE = Profile(min_rows=1, opt_rows=8, max_rows=64)
MODELS = Path(__file__).parents[2] / "models"
NO_KERNEL = "Could not find any implementation for node {ForeignNode[a...b]}"
OOM = "Error Code 2: OutOfMemory (Requested size was 5000 bytes.)"


def request(**changes: object) -> BuildRequest:
    fields: dict[str, object] = {"source": "test", "graph": b"", "precision": "fp32", "profiles": (PROFILE,)}
    return BuildRequest(**(fields | changes))  # type: ignore[arg-type]


def fake(generation: Generation, *fails: str, **options: object) -> tuple[FakeTensorRT, Library]:
    module = FakeTensorRT(generation, *fails, **options)  # type: ignore[arg-type]
    return module, Library("tensorrt", module)


class Heard:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def phase_started(self, *arguments: object) -> None:
        self.calls.append(("started", *arguments))

    def step_done(self, *arguments: object) -> None:
        self.calls.append(("step", *arguments))

    def phase_finished(self, *arguments: object) -> None:
        self.calls.append(("finished", *arguments))


def rtx() -> Library:
    library = load_library("tensorrt_rtx")
    if library is None:
        pytest.skip("tensorrt_rtx isn't installed: it has wheels for Linux on x86-64 only")
    return library


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_generation_builds_with_what_it_has(generation: Generation, precision: str) -> None:
    module, library = fake(generation)
    built = library.build(request(precision=precision))
    assert built.plan == b"plan"
    assert library.runtime == PlanRuntime(name="tensorrt", version=generation)
    assert [(each.name, each.shape, each.is_input) for each in built.tensors] == [
        ("sales", (None, 3), True),
        ("price", (None,), True),
        ("forecast", (None, 2, 2), False),
    ]
    assert built.tensors[0].profiles == (((1, 3), (8, 3), (64, 3)),)
    ((network, config),) = module.built
    assert config.profiles == [{"sales": ((1, 3), (8, 3), (64, 3)), "price": ((1,), (8,), (64,))}]
    weak = generation == "8.6.1"
    assert network.creation_flags == 1 << (0 if weak else 1)
    low = {"FP16", "OBEY_PRECISION_CONSTRAINTS"} if weak and precision != "fp32" else set()
    assert config.flags == low | ({"INT8"} if weak and precision == "int8" else set())


def test_where_types_are_weak_fp32_is_held_on_to_and_int8_left_free() -> None:
    module, library = fake("8.6.1")
    library.build(request(precision="int8"))
    bound = {layer.name: layer for layer in module.built[0][0].layers if layer.precision is not None}
    assert bound.keys() == {"scaled", "forecast"}
    assert all(layer.precision == DataType.FLOAT for layer in bound.values())
    assert all(layer.output_types == {0: DataType.FLOAT} for layer in bound.values())
    assert not any(layer.output_types for layer in module.built[0][0].layers if layer.name not in bound)


def test_where_types_are_strong_nothing_is_bound() -> None:
    module, library = fake("10.13.0.35")
    library.build(request(precision="fp16"))
    assert not any(layer.precision or layer.output_types for layer in module.built[0][0].layers)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_progress_is_told_where_it_can_be(generation: Generation) -> None:
    _, library = fake(generation)
    heard = Heard()
    library.build(request(), heard)
    expected = [("started", "Tactics", None, 2), ("step", "Tactics", 0), ("finished", "Tactics")]
    assert heard.calls == (expected if library.has_progress else [])
    assert library.has_progress == (generation != "8.6.1")


def test_a_timing_cache_is_kept_and_one_of_another_gpu_is_made_anew(tmp_path: Path) -> None:
    module, library = fake("8.6.1")
    path = tmp_path / "caches" / "gpu.cache"
    assert library.build(request(timing_cache=path)).notes == ()
    assert path.read_bytes() == b"timed"
    library.build(request(timing_cache=path))
    assert module.built[-1][1].cache == b"timed"
    path.write_bytes(b"other GPU")
    assert "is of another GPU or version" in library.build(request(timing_cache=path)).notes[0]
    assert module.built[-1][1].cache == b""


def test_a_timing_cache_that_can_not_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    _, library = fake("8.6.1")
    (note,) = library.build(request(timing_cache=tmp_path / "file" / "gpu.cache")).notes
    assert "can't be written" in note


@pytest.mark.parametrize("generation", GENERATIONS)
def test_how_hard_the_builder_tries_is_the_librarys_own_unless_it_is_named(generation: Generation) -> None:
    module, library = fake(generation)
    library.build(request())
    library.build(request(optimization_level=0))
    assert [config.builder_optimization_level for _, config in module.built] == [3, 0]


def test_out_of_memory_is_tried_again_with_less_workspace() -> None:
    module, library = fake("8.6.1", OOM)
    built = library.build(request(free_bytes=1 << 30))
    assert [config.workspace_bytes for _, config in module.built] == [None, 1 << 29]
    assert built.notes == ("out of device memory with no limit of workspace; tried again with less",)
    assert built.workspace_bytes == 1 << 29


def test_out_of_memory_for_good_is_said_with_the_remedy() -> None:
    _, library = fake("8.6.1", OOM, OOM, OOM)
    with pytest.raises(
        OutOfMemoryError, match=r"for 64 rows, also with 134,217,728 bytes .* lower the profile's maximum"
    ):
        library.build(request(free_bytes=1 << 30))


def test_a_limit_that_is_too_small_is_said_and_not_made_smaller() -> None:
    module, library = fake("8.6.1", OOM)
    with pytest.raises(
        OutOfMemoryError, match=r"needs 5,000 bytes of workspace, the limit is 4,000 bytes; raise --work"
    ):
        library.build(request(workspace_bytes=4000, free_bytes=1 << 30))
    assert len(module.built) == 1


def test_a_machine_without_a_gpu_is_told_in_the_librarys_words() -> None:
    _, library = fake("8.6.1", without_gpu=True)
    with pytest.raises(
        PlanError,
        match=r"can't start: CUDA initialization failure with error: 35.*; this needs an NVIDIA GPU and its driver",
    ):
        library.build(request())


def test_an_error_is_told_with_what_the_library_said() -> None:
    _, library = fake("11.0.0.5", "Could not find any implementation for node {x}")
    with pytest.raises(PlanError, match=r"couldn't build the fp32 plan: Could not find any implementation"):
        library.build(request())


def test_where_types_are_weak_a_graph_without_kernels_is_built_with_its_layers_free() -> None:
    module, library = fake("8.6.1", NO_KERNEL)
    (note,) = library.build(request(precision="int8")).notes
    assert "no kernels for the graph with its FP32 layers held" in note
    assert NO_KERNEL in note
    held, free = module.built
    assert held[1].flags == {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}
    assert free[1].flags == {"FP16", "INT8"}
    assert not any(layer.precision or layer.output_types for layer in free[0].layers)


@pytest.mark.parametrize(("generation", "precision"), [("8.6.1", "fp32"), ("10.13.0.35", "fp16"), ("11.0.0.5", "int8")])
def test_where_the_graph_says_the_precision_a_build_without_kernels_fails(
    generation: Generation, precision: str
) -> None:
    module, library = fake(generation, NO_KERNEL)
    with pytest.raises(NoImplementationError, match=r"implementation for node"):
        library.build(request(precision=precision))
    assert len(module.built) == 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_kernel_for_a_workspace_that_was_made_smaller_is_a_want_of_memory(generation: Generation) -> None:
    module, library = fake(generation, OOM, NO_KERNEL, NO_KERNEL)
    with pytest.raises(OutOfMemoryError, match=r"for 64 rows, also with 134,217,728 bytes"):
        library.build(request(precision="fp16", free_bytes=1 << 30))
    assert len(module.built) == 3
    module, library = fake(generation, OOM, NO_KERNEL)
    assert library.build(request(precision="fp16", free_bytes=1 << 30)).workspace_bytes == 1 << 27
    weak = {"FP16", "OBEY_PRECISION_CONSTRAINTS"} if generation == "8.6.1" else set()
    assert module.built[-1][1].flags == weak  # not freed


def test_notes_of_a_build_that_was_given_up_are_not_told_twice(tmp_path: Path) -> None:
    path = tmp_path / "gpu.cache"
    path.write_bytes(b"other GPU")
    _, library = fake("8.6.1", NO_KERNEL)
    notes = library.build(request(precision="fp16", timing_cache=path)).notes
    assert [note.split()[0] for note in notes] == ["TensorRT", "timing"]


def test_a_graph_without_kernels_in_either_way_is_told() -> None:
    _, library = fake("8.6.1", NO_KERNEL, NO_KERNEL)
    with pytest.raises(NoImplementationError, match=r"couldn't build the fp16 plan"):
        library.build(request(precision="fp16"))


def test_targets_need_a_library_that_builds_for_absent_gpus() -> None:
    _, library = fake("10.13.0.35")
    assert library.targets == ()
    with pytest.raises(PlanError, match=r"builds for the GPU at hand only, targets 8\.0 were asked for"):
        library.build(request(targets=("8.0",)))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_parser_names_every_node_that_it_refuses(generation: Generation) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["y"], name="determinant"),
        helper.make_node("BitShift", ["y", "y"], ["z"], name="shift", direction="LEFT"),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_model(helper.make_graph(nodes, "made", [value], [])).SerializeToString()
    _, library = fake(generation, refuses=((0, "determinant", "Det"), (1, "shift", "BitShift")))
    with pytest.raises(GraphError) as caught:
        library.build(request(graph=graph))
    assert len(caught.value.problems) == 2
    assert "node 'determinant': TensorRT" in caught.value.problems[0]
    assert (
        "refuses operator Det (parseNode: no importer); write the determinant written out" in caught.value.problems[0]
    )
    assert "node 'shift'" in caught.value.problems[1]


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert load_library.__wrapped__("tensorrt") is None


def test_a_library_that_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.8: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(PlanError, match=r"is installed but can't be loaded: libnvinfer"):
        load_library.__wrapped__("tensorrt")


def test_rtx_builds_for_absent_gpus_and_tells_how_far_it_is() -> None:
    library = rtx()
    assert {"8.0", "8.9"} <= set(library.targets)
    assert not library.has_timing_cache
    heard = Heard()
    graph = (MODELS / "bakery-smoother" / "model.onnx").read_bytes()
    built = library.build(request(graph=graph, targets=("8.0", "8.9")), heard)
    assert len(built.plan) > 10_000
    assert heard.calls[0][:2] == ("started", "Building engine")
    assert heard.calls[-1] == ("finished", "Building engine")


def test_rtx_refuses_what_it_cannot_build_for() -> None:
    graph = (MODELS / "bakery-smoother" / "model.onnx").read_bytes()
    with pytest.raises(PlanError, match=r"doesn't build for compute capability 9\.0, only for 7\.5, 8\.0"):
        rtx().build(request(graph=graph, targets=("9.0",)))


def test_rtx_refuses_bytes_that_are_no_model() -> None:
    with pytest.raises(GraphError, match=r"can't parse it: .*export it again"):
        rtx().build(request(graph=b"garbage", targets=("8.0",)))


def test_rtx_says_how_much_workspace_is_missing() -> None:
    graph = (MODELS / "freshretailnet-lstm" / "model.onnx").read_bytes()
    profile = Profile(min_rows=1, opt_rows=2048, max_rows=8192)
    with pytest.raises(OutOfMemoryError, match=r"needs \d[\d,]+ bytes of workspace, the limit is 268,435,456 bytes"):
        rtx().build(request(graph=graph, profiles=(profile,), targets=("8.0",), workspace_bytes=1 << 28))


def test_rtx_does_not_load_what_is_no_plan() -> None:
    with pytest.raises(PlanError, match=r"can't load the plan: .*the file is damaged or of another version"):
        rtx().facts(b"not a plan" * 100)
