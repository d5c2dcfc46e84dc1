"""What `trt.py` takes and gives, as values; and the parts of TensorRT's Python API that it uses, as protocols.

The protocols say what 8.6, 10, 11 and TensorRT-RTX have in common. What only some of them have is asked for by `hasattr` where
it is used. TensorRT's published stubs aren't used: installing them installs the library (docs/adr).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from schemas.engine_card import Precision, Profile

Shape = tuple[int | None, ...]
"""Sizes; None where the size is the batch's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """An input or output of a network or an engine. dtype: "float32". profiles: (min, opt, max) shapes, inputs only."""

    name: str
    dtype: str
    shape: Shape
    is_input: bool
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One plan to build.

    source: names the graph in messages. graph: ONNX bytes. targets: compute capabilities ("8.0"), empty for the GPU at hand.
    workspace_bytes: most scratch memory that the builder and the plan may use; None leaves it to the library.
    optimization_level: 0 (quick to build) to 5 (tries the most kernels); None leaves it to the library.
    free_bytes: device memory that is free now, None if there is no device. timing_cache: file that makes builds on the same
    GPU with the same library faster; None does without.
    """

    source: str
    graph: bytes
    precision: Precision
    profiles: tuple[Profile, ...]
    targets: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    free_bytes: int | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan and what its network had. workspace_bytes: the limit it was built under. notes: sentences for the report."""

    plan: bytes
    tensors: tuple[TensorFacts, ...]
    layers: int
    workspace_bytes: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What a plan says of itself once it is loaded. layers: as the inspector describes them, a JSON text."""

    tensors: tuple[TensorFacts, ...]
    device_memory_bytes: int
    layers: str


class Progress(Protocol):
    """Hears how far a build is; may be called from the builder's threads."""

    def phase_started(self, phase: str, parent: str | None, steps: int) -> None:
        """`phase` begins, within `parent`; it has `steps` steps."""
        ...

    def step_done(self, phase: str, step: int) -> None:
        """Step number `step` (from 0) of `phase` is over."""
        ...

    def phase_finished(self, phase: str) -> None:
        """`phase` is over, however many of its steps were told."""
        ...


class Tensor(Protocol):
    """An input or output of a network."""

    name: str
    dtype: Any
    shape: Sequence[int]


class Layer(Protocol):
    """A layer of a network."""

    name: str
    type: Any
    precision: Any
    num_inputs: int
    num_outputs: int

    def get_input(self, index: int) -> Tensor | None:
        """None for an optional input that isn't given."""
        ...

    def get_output(self, index: int) -> Tensor:
        """Output number `index`."""
        ...

    def set_output_type(self, index: int, dtype: Any) -> None:  # noqa: ANN401
        """Hold output number `index` to a type. Weakly typed networks only."""
        ...


class Network(Protocol):
    """What the parser fills and the builder builds."""

    num_inputs: int
    num_outputs: int
    num_layers: int

    def get_input(self, index: int) -> Tensor:
        """Input number `index`."""
        ...

    def get_output(self, index: int) -> Tensor:
        """Output number `index`."""
        ...

    def get_layer(self, index: int) -> Layer:
        """Layer number `index`."""
        ...


class Config(Protocol):
    """How to build."""

    builder_optimization_level: int

    def set_flag(self, flag: Any) -> None:  # noqa: ANN401
        """Turn a `BuilderFlag` on."""
        ...

    def clear_flag(self, flag: Any) -> None:  # noqa: ANN401
        """Turn a `BuilderFlag` off."""
        ...

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:  # noqa: ANN401
        """Limit a pool, bytes."""
        ...

    def add_optimization_profile(self, profile: Any) -> int:  # noqa: ANN401
        """Index of the profile; negative if it was refused."""
        ...


class Builder(Protocol):
    """Makes networks, configurations and plans."""

    def create_network(self, flags: int) -> Network:
        """An empty network."""
        ...

    def create_builder_config(self) -> Any:  # noqa: ANN401 - a `Config` and what only some versions have
        """A configuration with the library's defaults."""
        ...

    def create_optimization_profile(self) -> Any:  # noqa: ANN401
        """An empty profile."""
        ...

    def build_serialized_network(self, network: Network, config: Config) -> Any:  # noqa: ANN401 - host memory
        """The plan; None if it failed, with the reason in the log."""
        ...
