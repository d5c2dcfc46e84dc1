"""One forward pass on the GPU by TensorRT 8.6 at five batch sizes, from the FP32, FP16 and INT8 graphs; needs no PyTorch.

python -m demo.training.timing_tensorrt --onnx FOLDER --out FILE     FOLDER holds <model>.<precision>.onnx
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from demo.series import FloatArray

ROWS: Final = (1, 64, 512, 2048, 8192)
_SETS: Final = 4  # of inputs, in turn, so that no cache holds them all
_WARM_UP: Final = 10
_REPEATS: Final = 50
_FULL_PRECISION: Final = ("/model/features", "/model/calibration")
_WORKSPACE_BYTES: Final = 4 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and time every graph in the folder; the file is rewritten after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="part of the file names wanted")
    options = parser.parse_args(arguments)
    trt: Any = importlib.import_module("tensorrt")
    lines = []
    for path in sorted(options.onnx.glob(f"*{options.only}*.onnx")):
        start_s = time.monotonic()
        engine = build(trt, path)
        built_s = time.monotonic() - start_s
        with contextlib.closing(Pass(trt, engine)) as run:
            times_ms = {rows: run.median_ms(rows) for rows in ROWS}
            difference = run.difference(path.with_suffix("").with_suffix(".npz"))
        lines.append({"graph": path.stem, "build_s": built_s, "ms_by_rows": times_ms, "difference": difference})
        print(
            path.stem,
            f"built in {built_s:.0f} s, differs {difference}",
            {k: round(v, 3) for k, v in times_ms.items()},
            flush=True,
        )
        content = {"tensorrt": trt.__version__, "times": lines}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def build(trt: Any, path: Path) -> Any:  # noqa: ANN401 - an untyped library
    """An engine for 1 to 8192 rows. The precision is the graph's own (`<model>.<precision>.onnx`).

    TensorRT 8.6 is weakly typed: the flags allow lower precisions everywhere, so the layers of scaling and calendar, which
    half precision would spoil (days since 1970), are bound to FP32. Raises `RuntimeError` with the parser's words.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise RuntimeError(f"{path.name}: " + "; ".join(str(parser.get_error(k)) for k in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; FP32 is to mean FP32
    precision = path.stem.rsplit(".", 1)[-1]
    if precision != "fp32":
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        bind_to_fp32(trt, network)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (2048, *rest), (ROWS[-1], *rest))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError(f"{path.name}: TensorRT couldn't build an engine; its log says why")
    return trt.Runtime(logger).deserialize_cuda_engine(plan)


def bind_to_fp32(trt: Any, network: Any) -> None:  # noqa: ANN401
    """Bind the layers of scaling and calendar to FP32: what they compute in, and what lies between them.

    A layer's `precision` alone would leave the builder free to store its result in FP16, in which days since 1970 are known
    to 16 days. Layers of integers and truth values stay as they are, and so do Q and DQ, whose types are the graph's own.
    """
    alone = (
        trt.LayerType.CONSTANT,
        trt.LayerType.SHAPE,
        trt.LayerType.QUANTIZE,
        trt.LayerType.DEQUANTIZE,
    )
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        outputs = range(layer.num_outputs)
        floats = all(layer.get_output(k).dtype == trt.float32 for k in outputs)
        if floats and layer.type not in alone and any(part in layer.name for part in _FULL_PRECISION):
            layer.precision = trt.float32
            for k in outputs:
                layer.set_output_type(k, trt.float32)


class Pass:
    """Runs one engine on random inputs that lie on the GPU. Close it to give its memory on the GPU back."""

    def __init__(self, trt: Any, engine: Any) -> None:  # noqa: ANN401
        self.cuda: Any = importlib.import_module("cuda.bindings.runtime")
        self.engine, self.context = engine, engine.create_execution_context()
        self.stream = self._checked(self.cuda.cudaStreamCreate())
        self.events = [self._checked(self.cuda.cudaEventCreate()) for _ in range(2)]
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        self.widths = {name: tuple(engine.get_tensor_shape(name))[1:] for name in names}
        self.inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.memory: list[dict[str, int]] = []
        for _ in range(_SETS):
            sizes = {name: 4 * ROWS[-1] * int(np.prod(width)) for name, width in self.widths.items()}
            self.memory.append({name: self._checked(self.cuda.cudaMalloc(size)) for name, size in sizes.items()})

    def close(self) -> None:
        """Free inputs and outputs, events and stream."""
        for address in (address for memory in self.memory for address in memory.values()):
            self._checked(self.cuda.cudaFree(address))
        for event in self.events:
            self._checked(self.cuda.cudaEventDestroy(event))
        self._checked(self.cuda.cudaStreamDestroy(self.stream))

    def median_ms(self, rows: int) -> float:
        """Median time of one pass between two CUDA events, in milliseconds."""
        random = np.random.default_rng(rows)
        for memory in self.memory:
            for name in self.inputs:
                self._write(memory[name], _random_field(random, name, (rows, *self.widths[name])))
        times_ms = [self._timed(rows, self.memory[k % _SETS]) for k in range(_WARM_UP + _REPEATS)][_WARM_UP:]
        return float(np.median(times_ms))

    def difference(self, golden: Path) -> float | None:
        """Sum of absolute differences / sum of the reference over the rows in `golden`; None without such a file."""
        if not golden.is_file():
            return None
        with np.load(golden) as content:
            fields = {name: np.ascontiguousarray(content[name], dtype=np.float32) for name in content.files}
        expected, rows, memory = fields.pop("forecast"), len(fields["sales"]), self.memory[0]
        for name in self.inputs:
            self._write(memory[name], fields[name])
        self._timed(rows, memory)
        found = np.empty_like(expected)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._checked(self.cuda.cudaMemcpy(found.ctypes.data, memory["forecast"], found.nbytes, kind))
        return float(np.abs(found - expected).sum() / expected.sum())

    def _timed(self, rows: int, memory: dict[str, int]) -> float:
        for name, address in memory.items():
            self.context.set_tensor_address(name, address)
        for name in self.inputs:
            if not self.context.set_input_shape(name, (rows, *self.widths[name])):
                raise RuntimeError(f"TensorRT refused {rows} rows of {name}; the engine's profile has 1 to {ROWS[-1]}")
        start, end = self.events
        self._checked(self.cuda.cudaEventRecord(start, self.stream))
        if not self.context.execute_async_v3(int(self.stream)):
            raise RuntimeError(f"TensorRT couldn't run a batch of {rows} rows; its log says why")
        self._checked(self.cuda.cudaEventRecord(end, self.stream))
        self._checked(self.cuda.cudaEventSynchronize(end))
        return float(self._checked(self.cuda.cudaEventElapsedTime(start, end)))

    def _write(self, address: int, values: FloatArray) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self.cuda.cudaMemcpy(address, values.ctypes.data, values.nbytes, kind))

    def _checked(self, result: tuple[Any, ...]) -> Any:  # noqa: ANN401
        status, *values = result
        if int(status) != 0:
            raise RuntimeError(f"CUDA: {status}")
        return values[0] if values else None


def _random_field(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> FloatArray:
    if name == "as_of":
        return random.integers(17_000, 18_000, size=shape).astype(np.float32)
    values = random.random(shape, dtype=np.float32)
    return values * np.float32(100.0) if name in {"sales", "weekday_mean"} else values


if __name__ == "__main__":
    raise SystemExit(main())
