"""TensorRT without a GPU: plans that compute `expected_forecasts`, run by `FakeCuda`. In the manner of 8.6 or of 10 and later.

A plan is JSON with a checksum. The runtime refuses one that is damaged, of another version or for another GPU, as the real one
does: by None and a logged line. Contexts refuse shapes outside their profile; one whose state changed after it was captured, and
one that goes while the GPU works for it, are a misuse.
"""

from __future__ import annotations

import enum
import json
import math
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.helpers.engines import expected_forecasts
from tests.helpers.simulated_cuda import FakeCuda

WEIGHT_BYTES = 5000
SCRATCH_BYTES = 3000


def fake_plan(
    inputs: Mapping[str, int | None],
    *,
    horizon: int,
    quantiles: Sequence[float],
    profiles: Sequence[tuple[int, int, int]],
    version: str = "8.6.1",
    capability: str = "9.0",
    shared_profiles: bool = True,
    dtype: str = "FLOAT",
    weight_bytes: int = WEIGHT_BYTES,
    scratch_bytes: int = SCRATCH_BYTES,
) -> bytes:
    """The bytes of a plan. `shared_profiles`: several contexts may use one profile (8.6 must be asked for that)."""
    body = json.dumps(
        {
            "inputs": dict(inputs),
            "horizon": horizon,
            "quantiles": list(quantiles),
            "profiles": [list(profile) for profile in profiles],
            "version": version,
            "capability": capability,
            "shared_profiles": shared_profiles,
            "dtype": dtype,
            "weight_bytes": weight_bytes,
            "scratch_bytes": scratch_bytes,
        }
    ).encode()
    return zlib.crc32(body).to_bytes(4, "big") + body


class IOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Strategy(enum.Enum):
    STATIC = 1
    USER_MANAGED = 2


class DataType(enum.Enum):
    FLOAT = 1
    HALF = 2


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class Logger:
    Severity = Severity

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


class FakeTensorRt:
    """The module. `modern`: as from 10 on. `refuse`: the number of the fallible call that is refused; `calls`: their names.

    `executed`: the inputs of every run, as the GPU saw them. `wrong_alone`: a batch of one row comes out wrong.
    """

    TensorIOMode = IOMode
    ILogger = Logger

    def __init__(self, cuda: FakeCuda, *, version: str = "8.6.1", modern: bool = False) -> None:
        self.__version__ = version
        self.cuda = cuda
        self.refuse: int | None = None
        self.capturable = True
        self.wrong_alone = False
        self.calls: list[str] = []
        self.executed: list[dict[str, Any]] = []
        self.shapes_set = 0
        self.logger: Logger | None = None
        self._engine_class: type[FakeEngine] = ModernEngine if modern else OldEngine
        if modern:
            self.ExecutionContextAllocationStrategy = Strategy

    def Runtime(self, logger: Logger) -> FakeRuntime | None:  # noqa: N802 - TensorRT's name
        self.logger = logger
        return FakeRuntime(self) if self.accepted("Runtime") else None

    def say(self, text: str) -> None:
        assert self.logger is not None
        self.logger.log(Severity.ERROR, text)
        self.logger.log(Severity.INFO, "something unimportant")

    def accepted(self, name: str) -> bool:
        """Count a fallible call; False if it is the one to refuse."""
        self.calls.append(name)
        if self.refuse == len(self.calls) - 1:
            self.say(f"{name} was refused")
            return False
        return True

    def reserved(self, owner: object, size: int, what: str) -> bool:
        """Device memory that goes when `owner` goes; False if there is too little."""
        address = self.cuda.take(size)
        if address is None:
            self.say(f"Error Code 2: OutOfMemory (no further information): {what} needs {size} bytes")
            return False

        def gone() -> None:
            self.cuda.log.append(f"free {what}")
            self.cuda.give_back(address)

        weakref.finalize(owner, gone)
        return True


class FakeRuntime:
    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module

    def deserialize_cuda_engine(self, data: bytes) -> FakeEngine | None:
        module = self._module
        if not module.accepted("deserialize_cuda_engine"):
            return None
        if int.from_bytes(data[:4], "big") != zlib.crc32(data[4:]):
            module.say("Error Code 1: Serialization (magic tag does not match)")
            return None
        content = json.loads(data[4:])
        here = f"{module.cuda.capability[0]}.{module.cuda.capability[1]}"
        if content["version"] != module.__version__:
            module.say(f"the plan is of version {content['version']}, this library is {module.__version__}")
            return None
        if content["capability"] != here:
            module.say(f"the plan is for compute {content['capability']}, this device is compute {here}")
            return None
        engine = module._engine_class(module, self, content)
        return engine if module.reserved(engine, content["weight_bytes"], "weights") else None


class FakeEngine:
    def __init__(self, module: FakeTensorRt, runtime: FakeRuntime, content: Mapping[str, Any]) -> None:
        self._module = module
        self._runtime = runtime
        self.content = content
        self.widths: dict[str, tuple[int, ...]] = {
            name: () if width is None else (width,) for name, width in content["inputs"].items()
        }
        self.profiles_taken: set[int] = set()
        self.num_optimization_profiles = len(content["profiles"])
        self.num_io_tensors = len(self.widths) + 1

    def get_tensor_name(self, index: int) -> str:
        return [*self.widths, "forecast"][index]

    def get_tensor_mode(self, name: str) -> IOMode:
        return IOMode.OUTPUT if name == "forecast" else IOMode.INPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        assert name == "forecast" or name in self.widths
        return DataType[self.content["dtype"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        output = (self.content["horizon"], len(self.content["quantiles"]))
        return -1, *(output if name == "forecast" else self.widths[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [(rows, *self.widths[name]) for rows in self.content["profiles"][profile_index]]


class OldEngine(FakeEngine):
    """As in 8.6."""

    @property
    def device_memory_size(self) -> int:
        return int(self.content["scratch_bytes"])

    def create_execution_context_without_device_memory(self) -> FakeContext | None:
        accepted = self._module.accepted("create_execution_context")
        return OldContext(self._module, self) if accepted else None


class ModernEngine(FakeEngine):
    """As from 10 on."""

    @property
    def device_memory_size_v2(self) -> int:
        return int(self.content["scratch_bytes"])

    def create_execution_context(self, strategy: Strategy) -> FakeContext | None:
        assert strategy is Strategy.USER_MANAGED
        accepted = self._module.accepted("create_execution_context")
        return ModernContext(self._module, self) if accepted else None


class FakeContext:
    def __init__(self, module: FakeTensorRt, engine: FakeEngine) -> None:
        self._module = module
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0
        self._scratch_bytes = 0
        self._generation = 0
        self._token = object()
        self.active_optimization_profile = -1
        if 0 not in engine.profiles_taken or engine.content["shared_profiles"]:
            self._take_profile(0)

    def _take_profile(self, index: int) -> None:
        self.active_optimization_profile = index
        self._engine.profiles_taken.add(index)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._module.cuda._stream(stream_handle)
        taken = profile_index in self._engine.profiles_taken and not self._engine.content["shared_profiles"]
        if taken or not self._module.accepted("set_optimization_profile_async"):
            self._module.say(f"profile {profile_index} is used by another context")
            raise RuntimeError("Error in set optimization profile async.")
        self._take_profile(profile_index)
        self._generation += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not self._module.accepted("set_tensor_address"):
            return False
        self._addresses[name] = memory
        self._generation += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.content["profiles"][self.active_optimization_profile]
        if not least <= shape[0] <= most or shape[1:] != self._engine.widths[name]:
            self._module.say(f"{name}: {shape} isn't within the profile")
            return False
        if not self._module.accepted("set_input_shape"):
            return False
        self._module.shapes_set += 1
        self._shapes[name] = shape
        self._generation += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._module.accepted("execute_async_v3"):
            return False
        capturing = self._module.cuda._stream(stream_handle).captured is not None
        if capturing and not self._module.capturable:
            self._module.say("operation not permitted when stream is capturing")
            return False
        self._module.cuda.enqueue(stream_handle, self._token, self._work(captured=capturing))
        return True

    def _work(self, *, captured: bool) -> Callable[[], None]:
        """What the GPU does, with shapes and addresses as they are now."""
        module, content, generation = self._module, self._engine.content, self._generation
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        (rows,) = {shape[0] for shape in shapes.values()}
        reference = weakref.ref(self)

        def run() -> None:
            context = reference()
            if context is None:
                raise module.cuda.misuse("the GPU works in a context that was destroyed")
            if captured and context._generation != generation:
                raise module.cuda.misuse("a graph was launched whose context was changed after the capture")
            module.cuda.floats(context._scratch, context._scratch_bytes // 4).fill(np.nan)
            columns = {
                name: module.cuda.floats(addresses[name], math.prod(shape)).reshape(shape).copy()
                for name, shape in shapes.items()
            }
            module.executed.append(columns)
            values = expected_forecasts(columns, rows, horizon=content["horizon"], quantiles=content["quantiles"])
            if module.wrong_alone and rows == 1:
                values += 1.0
            module.cuda.floats(addresses["forecast"], values.size)[:] = values.ravel()

        return run

    def _set_scratch(self, address: int, size: int) -> None:
        if size < self._engine.content["scratch_bytes"]:
            raise self._module.cuda.misuse(f"got {size} bytes of scratch memory, too few")
        self._scratch, self._scratch_bytes = address, size

    def __del__(self) -> None:
        self._module.cuda.log.append("free context")
        if not self._engine.content["shared_profiles"]:
            self._engine.profiles_taken.discard(self.active_optimization_profile)
        if self._module.cuda.has_work_of(self._token):
            self._module.cuda.misuse("a context was destroyed while the GPU had work for it")


class OldContext(FakeContext):
    """Its scratch memory is a property that can only be set."""

    def _set(self, address: int) -> None:
        self._set_scratch(address, self._engine.content["scratch_bytes"])

    device_memory = property(None, _set)


class ModernContext(FakeContext):
    def set_device_memory(self, memory: int, size: int) -> None:
        self._set_scratch(memory, size)
