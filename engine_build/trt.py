"""The one file that knows `tensorrt` (8.6 to 11) and `tensorrt_rtx`; each is asked what it offers, never which version it is.

    offers                        8.6   10    11    RTX
    EXPLICIT_BATCH must be said   yes   no    gone  gone
    strongly typed networks       no    yes   yes   yes      without them the precision flags must be set (`trt_weak.py`)
    progress monitor              no    yes   yes   yes
    timing cache                  yes   yes   yes   no       it times nothing while building
    building for other GPUs       no    no    no    yes      from a list of compute capabilities, without any GPU

The precision is the graph's: casts and Q/DQ say what is computed in what. TF32 is off everywhere: FP32 means FP32, and a
date as days since 1970 doesn't fit in TF32's ten bits.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx

from engine_build.errors import GraphError, NoImplementationError, OutOfMemoryError, PlanError
from engine_build.operators import NEAREST
from engine_build.trt_config import add_profile, monitor, share_profiles
from engine_build.trt_log import (
    Record,
    errors_of,
    has_no_implementation,
    missing_workspace_bytes,
    recorder,
    remedy_for,
    was_out_of_memory,
)
from engine_build.trt_types import BuildRequest, Built, Config, EngineFacts, Network, Progress, TensorFacts
from engine_build.trt_values import at_rows, dtype_of, first_of, sizes_of
from engine_build.trt_weak import bind_to_fp32
from schemas.engine_card import Precision, Profile
from schemas.plan_choice import PlanRuntime, RuntimeName

NAMES: Final[tuple[RuntimeName, ...]] = ("tensorrt", "tensorrt_rtx")
_SMALLER: Final = (2, 8)
"""On out-of-memory the build is tried again with the free memory divided by these as workspace."""


@functools.cache
def load_library(name: RuntimeName) -> Library | None:
    """The library `name`; None if it isn't installed. Raises `PlanError` if it is there and can't be loaded."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, RuntimeError) as error:
        raise PlanError(
            f"{name} is installed but can't be loaded: {error}; check its libraries and the driver"
        ) from error
    return Library(name, module)


class Library:
    """TensorRT or TensorRT-RTX: builds plans and looks into them.

    Args:
        name: of the module.
        module: the module itself; untyped, because no two versions have the same types.
    """

    def __init__(self, name: RuntimeName, module: Any) -> None:  # noqa: ANN401
        self.runtime = PlanRuntime(name=name, version=str(module.__version__))
        self._trt = module
        self._log: list[Record] = []
        self._logger = recorder(module, self._log)

    @property
    def targets(self) -> tuple[str, ...]:
        """Compute capabilities that it builds for without having the GPU; empty: it builds for the GPU at hand only."""
        names = getattr(getattr(self._trt, "ComputeCapability", None), "__members__", {})
        found = [match.groups() for name in names if (match := re.fullmatch(r"SM(\d+)(\d)", name))]
        return tuple(f"{major}.{minor}" for major, minor in sorted(found, key=lambda pair: (int(pair[0]), pair[1])))

    @property
    def has_progress(self) -> bool:
        """Whether builds tell how far they are."""
        return hasattr(self._trt, "IProgressMonitor")

    @property
    def has_timing_cache(self) -> bool:
        """Whether a timing cache makes later builds faster. A builder for absent GPUs can't time anything."""
        return hasattr(self._trt, "ITimingCache") and not self.targets

    def build(self, request: BuildRequest, progress: Progress | None = None) -> Built:
        """Build one plan. Takes seconds to minutes, and the calling thread.

        Raises `GraphError` for what the parser refuses (every node of it), `OutOfMemoryError`, `PlanError`.
        """
        try:
            return self._build(request, progress, held=True)
        except NoImplementationError as error:
            if not self._is_weak(request.precision):
                raise
            note = (
                f"{self.runtime} has no kernels for the graph with its FP32 layers held to FP32 ({error.said}); "
                "built with every layer free to compute in low precision: the proof says whether that is near enough"
            )
        built = self._build(request, progress, held=False)
        return replace(built, notes=(note, *built.notes))

    def _build(self, request: BuildRequest, progress: Progress | None, *, held: bool) -> Built:
        """The plan under the largest workspace limit that the device's memory bears."""
        notes: list[str] = []
        limits = [request.workspace_bytes]
        if request.free_bytes is not None:
            limits += [request.free_bytes // part for part in _SMALLER]
        for limit in limits:
            built = self._attempt(request, limit, progress, notes, held=held)
            if built is not None:
                return built
            shown = "no limit" if limit is None else f"{limit / 2**20:,.0f} MiB"
            notes.append(f"out of device memory with {shown} of workspace; tried again with less")
        raise OutOfMemoryError(
            f"{request.source}: not enough device memory to build the {request.precision} plan for "
            f"{request.profiles[-1].max_rows} rows, also with {limits[-1] or 0:,} bytes of workspace: "
            f"{errors_of(self._log)}; free the GPU or lower the profile's maximum"
        )

    def facts(self, plan: bytes) -> EngineFacts:
        """Load `plan` and say what it is. Needs a GPU that it fits. Raises `PlanError`."""
        engine = self.load(plan)
        inspector = engine.create_engine_inspector()
        return EngineFacts(
            tensors=self.engine_tensors(engine),
            device_memory_bytes=int(first_of(engine, "device_memory_size_v2", "device_memory_size")),
            layers=str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)),
        )

    def engine_tensors(self, engine: Any) -> tuple[TensorFacts, ...]:  # noqa: ANN401
        """Inputs and outputs of an engine that `load` gave."""
        return tuple(self._engine_tensor(engine, index) for index in range(engine.num_io_tensors))

    def load(self, plan: bytes) -> Any:  # noqa: ANN401 - an ICudaEngine
        """The engine of `plan`. Raises `PlanError`.

        The caller has checked its digest, as a plan is code, and that CUDA shows a GPU: without one, making TensorRT 8.6.1's
        runtime ends the process (segmentation fault).
        """
        self._log.clear()
        engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            text = errors_of(self._log)
            raise PlanError(f"{self.runtime} can't load the plan: {text}; {remedy_for(text)}")
        return engine

    def _attempt(
        self, request: BuildRequest, limit: int | None, progress: Progress | None, notes: list[str], *, held: bool
    ) -> Built | None:
        """The plan under one workspace limit; None if the device's memory didn't suffice."""
        trt = self._trt
        self._log.clear()
        builder = self._builder()
        network = self._parsed(builder, request)
        config = builder.create_builder_config()
        if limit is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
        if request.optimization_level is not None:
            config.builder_optimization_level = request.optimization_level
        bound = self._precision(config, network, request.precision, held=held)
        share_profiles(trt, config)
        self._targets(config, request)
        for profile in request.profiles:
            add_profile(builder, config, network, profile)
        if progress is not None and self.has_progress:
            config.progress_monitor = monitor(trt, progress)
        cache = self._with_timing_cache(config, request, notes)
        content = builder.build_serialized_network(network, config)
        if content is None:
            self._require_out_of_memory(request, limit)
            return None
        if bound is not None:
            notes.append(f"{bound} of {network.num_layers} layers are held to FP32, as the graph says")
        if cache is not None:
            _keep(cache, bytes(memoryview(config.get_timing_cache().serialize())), notes)
        return Built(
            plan=bytes(memoryview(content)),
            tensors=self._network_tensors(network, request.profiles),
            layers=network.num_layers,
            workspace_bytes=limit,
            notes=tuple(notes),
        )

    def _builder(self) -> Any:  # noqa: ANN401 - a `Builder`, or TensorRT's refusal
        try:
            return self._trt.Builder(self._logger)
        except (TypeError, RuntimeError) as error:  # pybind11 raises TypeError for a builder that couldn't be made
            text = errors_of(self._log) or str(error)
            raise PlanError(f"{self.runtime} can't start: {text}; {remedy_for(text)}") from error

    def _parsed(self, builder: Any, request: BuildRequest) -> Network:  # noqa: ANN401
        flags = self._trt.NetworkDefinitionCreationFlag
        wanted = "STRONGLY_TYPED" if self._is_strongly_typed else "EXPLICIT_BATCH"
        network: Network = builder.create_network(1 << int(getattr(flags, wanted)) if hasattr(flags, wanted) else 0)
        parser = self._trt.OnnxParser(network, self._logger)
        if not parser.parse(request.graph):
            found = [parser.get_error(index) for index in range(parser.num_errors)]
            nodes = _nodes(request.graph)
            problems = [self._parser_problem(error, nodes) for error in found] or [errors_of(self._log)]
            raise GraphError(request.source, problems)
        return network

    def _parser_problem(self, error: Any, nodes: list[tuple[str, str]]) -> str:  # noqa: ANN401
        index = int(error.node())
        known = nodes[index] if 0 <= index < len(nodes) else ("", "")
        name = error.node_name() if hasattr(error, "node_name") else known[0]
        operator = error.node_operator() if hasattr(error, "node_operator") else known[1]
        told = f"{error.func()}: {error.desc()}"
        if not operator:
            return f"{self.runtime} can't parse it: {told}; export it again"
        nearest = NEAREST.get(operator, "standard ONNX operators of opset 17 that its parser lists")
        return f"node {name!r}: {self.runtime} refuses operator {operator} ({told}); write {nearest} instead"

    def _is_weak(self, precision: Precision) -> bool:
        """Whether flags, not the graph, decide what is computed in `precision`."""
        return precision != "fp32" and not self._is_strongly_typed

    @property
    def _is_strongly_typed(self) -> bool:
        return hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    def _precision(self, config: Config, network: Network, precision: Precision, *, held: bool) -> int | None:
        """Set what `precision` needs. How many layers are held to FP32; None where the graph alone says it, or none is held."""
        flags = self._trt.BuilderFlag
        if hasattr(flags, "TF32"):
            config.clear_flag(flags.TF32)
        if not self._is_weak(precision):
            return None
        wanted = ["FP16", *(["INT8"] if precision == "int8" else []), *(["OBEY_PRECISION_CONSTRAINTS"] if held else [])]
        for name in wanted:
            if hasattr(flags, name):
                config.set_flag(getattr(flags, name))
        return bind_to_fp32(self._trt, network) if held else None

    def _targets(self, config: Any, request: BuildRequest) -> None:  # noqa: ANN401
        offered = self.targets
        if not offered:
            if request.targets:
                raise PlanError(
                    f"{self.runtime} builds for the GPU at hand only, targets {', '.join(request.targets)} were asked for; "
                    "build on a machine of each type, or with tensorrt_rtx"
                )
            return
        wrong = [target for target in request.targets if target not in offered]
        if wrong:
            raise PlanError(
                f"{self.runtime} doesn't build for compute capability {', '.join(wrong)}, only for {', '.join(offered)}; "
                "build with tensorrt on a machine of that type"
            )
        kinds = self._trt.ComputeCapability
        names = [f"SM{target.replace('.', '')}" for target in request.targets] or ["CURRENT"]
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(kinds, name), index)

    def _with_timing_cache(self, config: Any, request: BuildRequest, notes: list[str]) -> Path | None:  # noqa: ANN401
        if request.timing_cache is None or not self.has_timing_cache:
            return None
        content = request.timing_cache.read_bytes() if request.timing_cache.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False):
            notes.append(f"timing cache {request.timing_cache.name} is of another GPU or version; a new one is made")
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        return request.timing_cache

    def _require_out_of_memory(self, request: BuildRequest, limit: int | None) -> None:
        """Raise `PlanError` unless the build failed for want of memory: the device's, which a smaller workspace may mend, or
        that of a workspace that was made smaller, in which there may be no kernel for a layer.
        """
        text = errors_of(self._log)
        needed_bytes = missing_workspace_bytes(self._log, limit)
        if needed_bytes is not None:
            raise OutOfMemoryError(
                f"{request.source}: the {request.precision} plan for {request.profiles[-1].max_rows} rows needs "
                f"{f'{needed_bytes:,} bytes' if needed_bytes else 'more'} of workspace, the limit is {limit or 0:,} bytes; "
                "raise --workspace-mib or lower the profile's maximum"
            )
        smaller = limit != request.workspace_bytes and has_no_implementation(self._log)
        if was_out_of_memory(self._log) or smaller:
            return
        told = (
            f"{request.source}: {self.runtime} couldn't build the {request.precision} plan: {text}; {remedy_for(text)}"
        )
        raise NoImplementationError(told, text) if has_no_implementation(self._log) else PlanError(told)

    def _network_tensors(self, network: Network, profiles: tuple[Profile, ...]) -> tuple[TensorFacts, ...]:
        found = []
        for is_input, count, get in (
            (True, network.num_inputs, network.get_input),
            (False, network.num_outputs, network.get_output),
        ):
            for tensor in map(get, range(count)):
                shape = sizes_of(tensor.shape)
                bounds = tuple(
                    (at_rows(shape, p.min_rows), at_rows(shape, p.opt_rows), at_rows(shape, p.max_rows))
                    for p in profiles
                )
                found.append(
                    TensorFacts(
                        name=tensor.name,
                        dtype=dtype_of(tensor.dtype),
                        shape=shape,
                        is_input=is_input,
                        profiles=bounds if is_input else (),
                    )
                )
        return tuple(found)

    def _engine_tensor(self, engine: Any, index: int) -> TensorFacts:  # noqa: ANN401
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        bounds = [
            engine.get_tensor_profile_shape(name, profile)
            for profile in range(engine.num_optimization_profiles if is_input else 0)
        ]
        return TensorFacts(
            name=name,
            dtype=dtype_of(engine.get_tensor_dtype(name)),
            shape=sizes_of(engine.get_tensor_shape(name)),
            is_input=is_input,
            profiles=tuple((sizes_of(low), sizes_of(opt), sizes_of(high)) for low, opt, high in bounds),
        )


def _nodes(graph: bytes) -> list[tuple[str, str]]:
    """Name and operator of each node, for parsers that give a node's number only."""
    try:
        return [(node.name, node.op_type) for node in onnx.ModelProto.FromString(graph).graph.node]
    except Exception:  # noqa: BLE001 - protobuf's exceptions differ by version; the parser has refused it already
        return []


def _keep(path: Path, content: bytes, notes: list[str]) -> None:
    """Write a timing cache; one that can't be written costs time in the next build, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        notes.append(f"timing cache {path} can't be written: {error.strerror}; the next build takes as long")
