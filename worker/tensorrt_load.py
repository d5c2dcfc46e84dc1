"""Makes a `TensorRtEngine` from a plan's file, or nothing: whatever step fails, all that was made before it is freed.

Order of making, which is the reverse of freeing: plan, page-locked memory, device memory, stream, events, contexts, graphs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from schemas.engine_card import EngineCard, Plan
from worker.batch_shapes import BatchShapes, Shape
from worker.contract import spec_of
from worker.cuda import MIB, Cuda
from worker.deadline import Clock
from worker.engine import EngineSpec
from worker.errors import ContractError, EngineError, FatalEngineError, OutOfDeviceMemoryError
from worker.tensorrt_engine import TensorRtEngine
from worker.tensorrt_lane import ALIGNMENT_BYTES, Lane, Layout
from worker.tensorrt_runtime import LoadedPlan, PlanContext, PlanRefusedError, TensorRtLibrary

log = structlog.get_logger(__name__)


class PlanMisfitError(ContractError):
    """TensorRT refuses a plan whose bytes are what the card says: it was built for something else."""


REST_S: Final = 0.1
"""Between freeing two contexts. TensorRT's bindings hold Python's lock for as long as that takes (0.06 s for a Transformer on
an H200), and no step of a loop that serves another version meanwhile shall wait for two of them: one of thousands of rows takes
0.05 s. Up to three contexts are freed within the half second to the next commit, which is a longer step."""

REBUILD: Final = "build the plan anew for this GPU and this TensorRT with `engine-build build`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What an engine is loaded with: the GPU, the TensorRT that loads the plan, and how to wait (see `TensorRtEngine`)."""

    cuda: Cuda
    library: TensorRtLibrary
    clock: Clock = time.monotonic
    pause: Callable[[float], None] = time.sleep


def load_engine(
    path: Path,
    plan: Plan,
    card: EngineCard,
    schema: Mapping[str, Any],
    device: Device,
    *,
    slots: int,
    max_rows: int,
) -> TensorRtEngine:
    """Load the plan in `path` and hold it against its card and the feature schema; run every shape once.

    Args:
        path: the plan's file.
        plan: what the card says of it.
        card: says model, version, horizon and quantiles.
        schema: the feature schema whose fields are the model's inputs.
        device: where it runs.
        slots: batches whose memory may be in use at once, the one being filled among them.
        max_rows: rows per batch; memory is allocated for them.

    Raises `ContractError` when file, card and schema don't agree, `PlanMisfitError` when TensorRT refuses the plan,
    `OutOfDeviceMemoryError` when it doesn't fit into the GPU's memory, `EngineError` when a call to the GPU fails.
    """
    content = _checked_bytes(path, plan)
    with ExitStack() as cleanup:
        assembly = _Assembly(device, cleanup)
        try:
            loaded = device.library.load(content)
        except PlanRefusedError as error:
            raise PlanMisfitError(_refusal(path, plan, device, error)) from error
        except OutOfDeviceMemoryError as error:
            raise OutOfDeviceMemoryError(f"{path}: {error}{_free_memory(device.cuda)}") from error
        del content  # as large as the plan, and no longer needed
        assembly.keep(loaded.close)
        shapes = _shapes(path, loaded, plan, max_rows)
        spec = replace(_spec(path, loaded, plan, card, schema, max_rows), proof_rows=shapes.samples)
        lanes, stream = assembly.lanes(loaded, spec, shapes, slots)
        return TensorRtEngine(
            spec,
            cuda=device.cuda,
            lanes=lanes,
            shapes=shapes,
            stream=stream,
            resources=cleanup.pop_all(),
            clock=device.clock,
            pause=device.pause,
        )


class _Assembly:
    """Makes the parts on the GPU, and has `cleanup` free them."""

    def __init__(self, device: Device, cleanup: ExitStack) -> None:
        self._cuda = device.cuda
        self._pause = device.pause
        self._cleanup = cleanup
        self._contexts = 0

    def keep(self, free: Callable[..., None], *arguments: int) -> None:
        """Free it when its time comes. What can't be freed is logged, and the rest is freed all the same."""
        self._cleanup.callback(_freed, free, *arguments)

    def lanes(
        self, loaded: LoadedPlan, spec: EngineSpec, shapes: BatchShapes, count: int
    ) -> tuple[tuple[Lane, ...], int]:
        """Lanes, the first of which has run every shape once, and their stream."""
        cuda = self._cuda
        layout = Layout.of(spec.inputs, (spec.horizon, len(spec.quantiles)), shapes.capacity_rows)
        scratch_bytes = max(loaded.scratch_bytes, ALIGNMENT_BYTES)
        host = self._made(cuda.allocate_pinned, cuda.free_pinned, count * layout.size_bytes)
        device = self._made(self._allocate, cuda.free, layout.size_bytes)
        scratch = self._made(self._allocate, cuda.free, scratch_bytes)
        stream = self._made(cuda.create_stream, cuda.destroy_stream)
        events = [self._made(cuda.create_event, cuda.destroy_event) for _ in range(count)]
        lanes = tuple(
            Lane(
                cuda,
                layout,
                host=host + index * layout.size_bytes,
                device=device,
                stream=stream,
                event=event,
                index=index,
                max_rows=spec.max_rows,
            )
            for index, event in enumerate(events)
        )

        def new_context(profile: int) -> PlanContext:
            context = loaded.context(profile, scratch=scratch, scratch_bytes=scratch_bytes, stream=stream)
            if self._contexts:  # as freeing goes backwards, the pause comes after it, and none after the first
                self._cleanup.callback(self._pause, REST_S)
            self._contexts += 1
            self.keep(context.close)
            return context

        try:
            self._prepare(lanes, shapes, new_context, stream)
        except EngineError:
            self._settle(stream)
            raise
        return lanes, stream

    def _prepare(
        self, lanes: tuple[Lane, ...], shapes: BatchShapes, new_context: Callable[[int], PlanContext], stream: int
    ) -> None:
        """Contexts, a first run of every shape, graphs; fewer or none of these if TensorRT doesn't allow them here."""
        for profile in shapes.profiles:
            context = new_context(profile)
            for lane in lanes:
                lane.use(profile, context)
        for shape in shapes.warm_up:
            lanes[0].start(shape.rows, shape)
        self._cuda.synchronize(stream)
        for shape in reversed(shapes.graphs):  # the largest are worth most
            try:
                if not self._graphs(lanes, shape, new_context, stream):
                    return
            except OutOfDeviceMemoryError as error:
                if shapes.is_listed(shape):
                    raise
                self._settle(stream)
                log.warning("no CUDA graph of full batches", error=str(error))

    def _graphs(
        self, lanes: tuple[Lane, ...], shape: Shape, new_context: Callable[[int], PlanContext], stream: int
    ) -> bool:
        """Whether each lane has a graph of `shape` now; else TensorRT allows none here."""
        try:
            context = new_context(shape.profile)
        except (FatalEngineError, OutOfDeviceMemoryError):
            raise
        except EngineError as error:
            # TensorRT 8.6 must be told when it builds (PROFILE_SHARING_0806); later versions always allow it.
            self._cuda.raise_pending("making a second context")
            log.warning("the plan allows one context per profile: no CUDA graphs", error=str(error))
            return False
        return all(self._capture(lane, shape, context, stream) for lane in lanes)

    def _capture(self, lane: Lane, shape: Shape, context: PlanContext, stream: int) -> bool:
        """Whether there is a graph of one shape for one lane, run once; there isn't if TensorRT can't be captured here."""
        try:
            graph = lane.capture(context, shape.rows)
        except (FatalEngineError, OutOfDeviceMemoryError):
            raise
        except EngineError as error:
            self._cuda.synchronize(stream)
            log.warning("no further CUDA graphs: a batch can't be captured", rows=shape.rows, error=str(error))
            return False
        try:
            executable = self._made(self._cuda.instantiate, self._cuda.destroy_executable, graph)
        finally:
            _freed(self._cuda.destroy_graph, graph)
        lane.replay(shape.rows, executable)
        lane.start(shape.rows, shape)
        self._cuda.synchronize(stream)
        return True

    def _allocate(self, size_bytes: int) -> int:
        try:
            return self._cuda.allocate(size_bytes)
        except OutOfDeviceMemoryError as error:
            raise OutOfDeviceMemoryError(
                f"{size_bytes / MIB:,.1f} MiB of device memory can't be had: {error}; lower batching.max_rows, "
                "use a plan with a smaller profile, or take other work off this GPU"
            ) from error

    def _made(self, make: Callable[..., int], free: Callable[[int], None], *arguments: int) -> int:
        made = make(*arguments)
        self.keep(free, made)
        return made

    def _settle(self, stream: int) -> None:
        """Nothing may be freed under the GPU's hands. Nor may what comes next find an error of what came before."""
        for settle in (partial(self._cuda.synchronize, stream), partial(self._cuda.raise_pending, "loading an engine")):
            try:
                settle()
            except EngineError as error:
                log.warning("the GPU's last work failed while an engine was loaded", error=str(error))


def _freed(free: Callable[..., None], *arguments: int) -> None:
    try:
        free(*arguments)
    except EngineError as error:
        log.warning("couldn't free something of the GPU", error=str(error))


def _checked_bytes(path: Path, plan: Plan) -> bytes:
    """The plan's bytes. A plan is code: nothing but the bytes that the card names is handed to TensorRT."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(
            f"{path}: can't be read: {error.strerror}; the version isn't complete, publish it again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != plan.sha256:
        raise ContractError(
            f"{path}: sha256 is {digest} ({len(content):,} bytes), its card says {plan.sha256} ({plan.size_bytes:,} bytes); "
            "the file is damaged or was replaced: publish it again"
        )
    return content


def _refusal(path: Path, plan: Plan, device: Device, error: PlanRefusedError) -> str:
    gpu = device.cuda.gpu()
    return (
        f"{path}: TensorRT refuses the plan on {gpu.name} (compute capability {gpu.compute_capability}): {error}; the card says it "
        f"was built by {plan.runtime} {plan.runtime_version} for {', '.join(plan.compute_capabilities)}; {REBUILD}"
    )


def _free_memory(cuda: Cuda) -> str:
    memory = cuda.memory()
    return (
        f"; {memory.free_bytes / MIB:,.1f} of {memory.total_bytes / MIB:,.1f} MiB device memory are free: take other work off "
        "this GPU, or use a plan with a smaller profile or precision"
    )


def _spec(
    path: Path, loaded: LoadedPlan, plan: Plan, card: EngineCard, schema: Mapping[str, Any], max_rows: int
) -> EngineSpec:
    tensors = loaded.tensors
    try:
        spec = spec_of(
            tensors.inputs,
            tensors.outputs,
            card,
            schema,
            max_rows=max_rows,
            precision=plan.precision,
            digest=plan.sha256,
        )
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error
    return replace(spec, plan=plan)


def _shapes(path: Path, loaded: LoadedPlan, plan: Plan, max_rows: int) -> BatchShapes:
    # Full batches are what a busy worker runs, and a graph puts one into the stream by one call. Kernel by kernel it meets the
    # driver's lock many times, which is taken for long while another version is loaded (docs/adr/0018). TensorRT-RTX goes on to
    # faster kernels by itself, which a graph wouldn't.
    full = plan.runtime == "tensorrt"
    try:
        return BatchShapes(loaded.profiles, plan.cuda_graph_rows, max_rows, full=full)
    except ValueError as error:
        raise ContractError(
            f"{path}: {error}; lower batching.max_rows, or build the plan with a larger profile"
        ) from error
