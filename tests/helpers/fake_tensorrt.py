"""Stand-ins for the `tensorrt` module: what 8.6, 10 and 11 have of the names that the adapter uses, and nothing else.

A name that a version doesn't have isn't there, so the adapter fails as it would with the real one.
"""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any, Literal

Generation = Literal["8.6.1", "10.13.0.35", "11.0.0.5"]
GENERATIONS: tuple[Generation, ...] = ("8.6.1", "10.13.0.35", "11.0.0.5")


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class LayerType(IntEnum):
    MATRIX_MULTIPLY = 0
    CONSTANT = 1
    QUANTIZE = 2
    DEQUANTIZE = 3
    CAST = 4
    SHAPE = 5


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1


def tensor(name: str, shape: tuple[int, ...], dtype: DataType = DataType.FLOAT) -> Any:
    return SimpleNamespace(name=name, shape=shape, dtype=dtype)


class Layer:
    def __init__(self, kind: LayerType, inputs: list[Any], outputs: list[Any]) -> None:
        self.type, self.name = kind, outputs[0].name
        self._inputs, self._outputs = inputs, outputs
        self.num_inputs, self.num_outputs = len(inputs), len(outputs)
        self.precision: DataType | None = None
        self.output_types: dict[int, DataType] = {}

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def set_output_type(self, index: int, dtype: DataType) -> None:
        assert 0 <= index < self.num_outputs
        self.output_types[index] = dtype


class FakeNetwork:
    def __init__(self, flags: int) -> None:
        self.creation_flags = flags
        self.inputs = [tensor("sales", (-1, 3)), tensor("price", (-1,))]
        self.outputs = [tensor("forecast", (-1, 2, 2))]
        self.layers = _layers(self.inputs[0], self.outputs[0])
        self.num_inputs, self.num_outputs, self.num_layers = 2, 1, len(self.layers)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]


def _layers(source: Any, target: Any) -> list[Layer]:
    """scale (FP32) -> cast -> half product (FP16) -> cast -> Q -> DQ -> product in INT8 -> Q -> DQ -> rescale (FP32)."""
    scaled, half = tensor("scaled", (-1, 3)), tensor("half", (-1, 3), DataType.HALF)
    product, full = tensor("product", (-1, 3), DataType.HALF), tensor("full", (-1, 3))
    q1, d1, eighth = tensor("q1", (-1, 3)), tensor("d1", (-1, 3)), tensor("eighth", (-1, 3))
    q2, d2, plain = tensor("q2", (-1, 3)), tensor("d2", (-1, 3)), tensor("plain", (-1, 3))
    return [
        Layer(LayerType.MATRIX_MULTIPLY, [source, None], [scaled]),
        Layer(LayerType.CAST, [scaled], [half]),
        Layer(LayerType.MATRIX_MULTIPLY, [half], [product]),
        Layer(LayerType.CAST, [product], [full]),
        Layer(LayerType.QUANTIZE, [full], [q1]),
        Layer(LayerType.DEQUANTIZE, [q1], [d1]),
        Layer(LayerType.MATRIX_MULTIPLY, [d1], [eighth]),
        Layer(LayerType.QUANTIZE, [eighth], [q2]),
        Layer(LayerType.DEQUANTIZE, [q2], [d2]),
        Layer(LayerType.CONSTANT, [], [plain]),
        Layer(LayerType.MATRIX_MULTIPLY, [plain], [target]),
    ]


class FakeConfig:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.workspace_bytes: int | None = None
        self.builder_optimization_level = 3
        self.profiles: list[dict[str, Any]] = []
        self.cache = b""
        self.progress_monitor: Any = None

    def set_flag(self, flag: IntEnum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: IntEnum) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, _: IntEnum, size: int) -> None:
        self.workspace_bytes = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return not cache.startswith(b"other")

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timed")


class FakeTensorRT:
    """The module. fails: what `build_serialized_network` logs and fails with, build by build; then it succeeds."""

    def __init__(
        self,
        generation: Generation,
        *fails: str,
        refuses: tuple[tuple[int, str, str], ...] = (),
        without_gpu: bool = False,
    ) -> None:
        self.__version__ = generation
        major = int(generation.partition(".")[0])
        self.float32 = DataType.FLOAT
        self.LayerType = LayerType
        creation = {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 1}}
        made: Any = IntEnum
        self.NetworkDefinitionCreationFlag = made("Flag", creation[major])
        flags = ["TF32"] if major == 11 else ["TF32", "FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
        self.BuilderFlag = made("BuilderFlag", flags)
        self.MemoryPoolType = made("MemoryPoolType", {"WORKSPACE": 0})
        self.ILogger = type("ILogger", (), {"Severity": Severity})
        self.ITimingCache = object
        if major > 8:
            self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.fails = list(fails)
        self.without_gpu = without_gpu
        self.refuses = refuses
        self.built: list[tuple[FakeNetwork, FakeConfig]] = []
        self.logger: Any = None

    def Builder(self, logger: Any) -> FakeTensorRT:  # noqa: N802 - TensorRT's name
        self.logger = logger
        if self.without_gpu:  # as 8.6.1 does it, in its own words
            logger.log(
                Severity.WARNING, "CUDA initialization failure with error: 35. Please check your CUDA installation"
            )
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return self

    def create_network(self, flags: int) -> FakeNetwork:
        return FakeNetwork(flags)

    def create_builder_config(self) -> FakeConfig:
        return FakeConfig()

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *bounds: shapes.__setitem__(name, bounds))

    def build_serialized_network(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        self.built.append((network, config))
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Tactics", None, 2)
            assert config.progress_monitor.step_complete("Tactics", 0)
            config.progress_monitor.phase_finish("Tactics")
        if self.fails:
            self.logger.log(Severity.ERROR, self.fails.pop(0))
            return None
        return b"plan"

    def OnnxParser(self, _: FakeNetwork, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
        errors = [self._error(*each) for each in self.refuses]
        logger.log(Severity.INFO, "parsing")
        return SimpleNamespace(
            parse=lambda _: not errors, num_errors=len(errors), get_error=lambda index: errors[index]
        )

    def _error(self, node: int, name: str, operator: str) -> Any:
        common = {"node": lambda: node, "func": lambda: "parseNode", "desc": lambda: "no importer"}
        if self.__version__.startswith("8."):
            return SimpleNamespace(**common)  # names came with 10
        return SimpleNamespace(**common, node_name=lambda: name, node_operator=lambda: operator)
