"""TensorRT on this machine's GPU: time and memory of each precision, the engine against its bare plan, CUDA graphs.

Needs a GPU with TensorRT, and a folder of graphs as `python -m demo.training precisions --out FOLDER` writes it. To
--out: `timing-tensorrt.json` (one pass, to be put beside PyTorch's), `tensorrt.json` (the rest), and `versions/<model>-<precision>`,
folders with a plan each, which `python -m bench freshretailnet` runs a worker on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.job import ROOT
from bench.tensorrt_tables import tensorrt_lines
from bench.tensorrt_version import PROFILE, BenchPlan, built, write_version
from engine_build.device import runtime_api
from engine_build.device_run import DeviceRunner
from engine_build.measure import measure
from engine_build.trt import NAMES, Library
from engine_build.trt import load_library as builder_library
from schemas.load import load_schema
from schemas.plan_choice import RuntimeName
from worker.cuda import Cuda, load_cuda
from worker.engine import Slot
from worker.tensorrt_engine import TensorRtEngine
from worker.tensorrt_lane import Layout
from worker.tensorrt_load import Device, load_engine
from worker.tensorrt_runtime import load_library

MODELS: Final = ROOT / "models"
PRIMARY: Final = "freshretailnet-transformer"
"""The first recipe of demo/training/tasks.py."""
ENGINE_ROWS: Final = 4096
ENGINE_BATCHES: Final = 300
PASS_ROWS: Final = (1, 64, 512, 2048, 8192)
GRAPH_ROWS: Final = (2, 8, 16, 32, 64)
SINGLE_BATCHES: Final = 400
CHANGING_ROWS: Final = tuple(2048 + 128 * (7 * step % 16) for step in range(16))
"""Sixteen sizes between half an engine's largest batch and the whole, each far from the one before."""
SLOTS: Final = 3
AIMS: Final = {"engine / bare": 0.9, "graph / plain": 1.3, "int8 / fp32 memory": 0.4}


class Bench:
    """A GPU with TensorRT, and what is measured on it."""

    def __init__(self, library: Library, cuda: Cuda) -> None:
        self.library = library
        self.cuda = cuda
        self.gpu = cuda.gpu()
        self.device = Device(cuda=cuda, library=load_library(library.runtime.name))

    def passes(self, plan: BenchPlan) -> Mapping[str, object]:
        """One plan: times by batch size between events, memory, and how far its forecasts are from the reference.

        A single row is run as a worker does it, padded with zeros to the fewest rows of the profile.
        """
        # The first load in a process also brings in what is CUDA's own, some 90 MiB.
        DeviceRunner(self.library, runtime_api(), plan.content, PROFILE).close()
        with DeviceRunner(self.library, runtime_api(), plan.content, PROFILE) as runner:
            measured = measure(runner, plan.inputs, PROFILE)
            found = runner.run(plan.inputs)
            padded = {name: np.zeros_like(values[: PROFILE.min_rows]) for name, values in plan.inputs.items()}
            for name, values in padded.items():
                values[:1] = plan.inputs[name][:1]
            alone = runner.run(padded)[:1]
        points = {point.rows: point for point in measured.points}
        by_rows = {str(rows): points[max(rows, PROFILE.min_rows)] for rows in PASS_ROWS}
        return {
            "graph": plan.name,
            "build_s": plan.build_s,
            "notes": plan.notes,
            "profile": PROFILE.model_dump(),
            "ms_by_rows": {rows: point.median_s * 1e3 for rows, point in by_rows.items()},
            "rows_per_s_by_rows": {rows: point.rows_per_s * int(rows) / point.rows for rows, point in by_rows.items()},
            "device_memory_bytes": measured.device_memory_bytes,
            "difference": _difference(found, plan.reference),
            "difference_of_one_row": _difference(alone, plan.reference[:1]),
        }

    def engine_rates(self, plan: BenchPlan) -> Mapping[str, float]:
        """Rows per second of the engine with its copies, of the bare plan back to back, and of the copies alone.

        The engine launches its full batches as a CUDA graph; the bare plan is enqueued.
        """
        with DeviceRunner(self.library, runtime_api(), plan.content, PROFILE) as runner:
            for index in range(runner.sets):
                runner.fill(index, {name: np.resize(v, (ENGINE_ROWS, *v.shape[1:])) for name, v in plan.inputs.items()})
            runner.back_to_back_s(ENGINE_ROWS, 20)
            bare_s = runner.back_to_back_s(ENGINE_ROWS, ENGINE_BATCHES)
        with TemporaryDirectory() as folder:
            engine = self._engine(Path(folder), plan, ())
            try:
                _flow(engine, plan, 20)
                engine_s = _flow(engine, plan, ENGINE_BATCHES)
                copies_s = self._copies_s(engine)
            finally:
                engine.close()
        done = ENGINE_ROWS * ENGINE_BATCHES
        return {"engine": done / engine_s, "bare": done / bare_s, "copies": done / copies_s}

    def single_batches(self, plan: BenchPlan) -> Mapping[str, Mapping[str, float]]:
        """Milliseconds from submit to result, copies included, of one batch at a time: by CUDA graph, and enqueued."""
        found: dict[str, dict[str, float]] = {}
        for kind, graph_rows in (("plain", ()), ("graph", GRAPH_ROWS)):
            with TemporaryDirectory() as folder:
                engine = self._engine(Path(folder), plan, graph_rows)
                try:
                    found[kind] = {str(rows): _single_ms(engine, plan, rows) for rows in GRAPH_ROWS}
                finally:
                    engine.close()
        return found

    def size_changes(self, plan: BenchPlan) -> Mapping[str, float]:
        """Milliseconds from submit to result: of batches that are all as large, and of ones that each have another size than
        the one before, the first time that the engine sees the size, and again.
        """
        with TemporaryDirectory() as folder:
            engine = self._engine(Path(folder), plan, ())
            try:
                slot, *_ = _filled(engine, plan, ENGINE_ROWS)

                def median_ms(sizes: Sequence[int]) -> float:
                    times_s = [_seconds(lambda: engine.collect(engine.submit(slot, rows))) for rows in sizes]  # noqa: B023 - called at once
                    return statistics.median(times_s) * 1e3

                usual = (int(statistics.mean(CHANGING_ROWS)),) * len(CHANGING_ROWS)
                median_ms(usual)
                return {
                    "same": median_ms(usual),
                    "first": median_ms(CHANGING_ROWS),
                    "again": median_ms(CHANGING_ROWS),
                }
            finally:
                engine.close()

    def _engine(self, folder: Path, plan: BenchPlan, graph_rows: tuple[int, ...]) -> TensorRtEngine:
        path, entry, card = write_version(folder, MODELS / plan.model, plan, self.library, self.gpu, graph_rows)
        schema = load_schema(None, "sku_features")
        return load_engine(path, entry, card, schema, self.device, slots=SLOTS, max_rows=ENGINE_ROWS)

    def _copies_s(self, engine: TensorRtEngine) -> float:
        """Seconds for the copies of all batches alone, both ways, in one stream."""
        spec, cuda = engine.spec, self.cuda
        layout = Layout.of(spec.inputs, (spec.horizon, len(spec.quantiles)), ENGINE_ROWS)
        host, device = cuda.allocate_pinned(layout.size_bytes), cuda.allocate(layout.size_bytes)
        stream = cuda.create_stream()

        def copy(times: int) -> None:
            for _ in range(times):
                for field in layout.inputs:
                    size = ENGINE_ROWS * field.row_bytes
                    cuda.upload(device + field.offset, host + field.offset, size, stream)
                out = layout.output
                cuda.download(host + out.offset, device + out.offset, ENGINE_ROWS * out.row_bytes, stream)
            cuda.synchronize(stream)

        try:
            copy(20)
            return _seconds(lambda: copy(ENGINE_BATCHES))
        finally:
            cuda.destroy_stream(stream)
            cuda.free(device)
            cuda.free_pinned(host)


def _difference(found: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Sum of all differences, as a share of the sum of the reference."""
    return float(np.abs(found - reference).sum() / reference.sum())


def _flow(engine: TensorRtEngine, plan: BenchPlan, batches: int) -> float:
    """Seconds for so many full batches, every slot in use, each result collected in its turn."""
    slots = _filled(engine, plan, ENGINE_ROWS)

    def run() -> None:
        flights = [engine.submit(slot, ENGINE_ROWS) for slot in slots]
        for _ in range(batches - len(slots)):
            oldest = flights.pop(0)
            engine.collect(oldest)
            flights.append(engine.submit(oldest.slot, ENGINE_ROWS))
        for flight in flights:
            engine.collect(flight)

    taken_s = _seconds(run)
    for slot in slots:
        engine.release(slot)
    return taken_s


def _single_ms(engine: TensorRtEngine, plan: BenchPlan, rows: int) -> float:
    slots = _filled(engine, plan, rows)
    times_s = [
        _seconds(lambda: engine.collect(engine.submit(slots[turn % len(slots)], rows)))  # noqa: B023 - called at once
        for turn in range(SINGLE_BATCHES)
    ]
    for slot in slots:
        engine.release(slot)
    return statistics.median(times_s[SINGLE_BATCHES // 4 :]) * 1e3


def _filled(engine: TensorRtEngine, plan: BenchPlan, rows: int) -> list[Slot]:
    """All slots of the engine, with other rows in each."""
    slots: list[Slot] = []
    while (slot := engine.acquire()) is not None:
        for name, column in slot.columns.items():
            values = np.roll(plan.inputs[name], len(slots), axis=0)
            column[:rows] = np.resize(values, (rows, *values.shape[1:]))
        slots.append(slot)
    return slots


def _seconds(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m bench tensorrt", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--graphs", type=Path, required=True, help="folder with <model>.<precision>.onnx and <model>.npz"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder (default %(default)s)")
    parser.add_argument("--only", default="", help="part of the graphs' names; all without it")
    parser.add_argument(
        "--builders",
        type=int,
        default=1,
        help="build so many plans at a time, all of them before anything is measured (default %(default)s)",
    )
    parser.add_argument("--workspace-mib", type=int, help="most scratch memory of a plan (the library's own limit)")
    given = parser.parse_args(arguments)
    library = next((each for name in NAMES if (each := builder_library(name)) is not None), None)
    if library is None:
        print(
            "bench tensorrt: got neither tensorrt nor tensorrt_rtx, expected one of them beside a GPU", file=sys.stderr
        )
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    graphs = sorted((path for path in given.graphs.glob("*.onnx") if given.only in path.name), key=_turn)
    workspace_bytes = None if given.workspace_mib is None else given.workspace_mib << 20
    failed = _measured(Bench(library, load_cuda()), graphs, given.out, given.builders, workspace_bytes)
    return 1 if failed or not graphs else 0


def _turn(graph: Path) -> tuple[bool, bool, str]:
    """The primary first, FP16 before the others: a run that is cut short has what is asked for most."""
    return not graph.name.startswith(PRIMARY), not graph.stem.endswith(".fp16"), graph.name


def _measured(
    bench: Bench, graphs: Sequence[Path], out: Path, builders: int, workspace_bytes: int | None = None
) -> int:
    """Measure every graph, write after each, print the tables; returns how many failed. One that fails doesn't stop the others."""
    lines: list[Mapping[str, object]] = []
    failures: dict[str, str] = {}
    runtime = bench.library.runtime
    result: dict[str, object] = {"gpu": asdict(bench.gpu), "runtime": str(runtime), "aims": AIMS, "passes": lines}
    result |= {"builders": builders, "workspace_bytes": workspace_bytes, "failures": failures}
    for graph, build in _builds(bench.library.runtime.name, graphs, builders, workspace_bytes):
        try:
            lines.append(_measure(bench, build(), out))
        except Exception as error:  # noqa: BLE001 - whatever TensorRT, CUDA or a bug of ours did to this one
            failures[graph.stem] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        _write(out / "tensorrt.json", result)
        _write(out / "timing-tensorrt.json", {"tensorrt": runtime.version, "times": lines})
    if lines:
        print("\n".join(["", *tensorrt_lines(result)]))
    for name, said in failures.items():
        print(f"FAILED {name}: {said.splitlines()[0][:300]}")
    return len(failures)


def _builds(
    runtime: RuntimeName, graphs: Sequence[Path], builders: int, workspace_bytes: int | None
) -> Iterator[tuple[Path, Callable[[], BenchPlan]]]:
    """Each graph with what gives its plan, or raises why there is none; in order."""
    if builders == 1:
        yield from ((graph, partial(_build, runtime, graph, workspace_bytes)) for graph in graphs)
        return
    # In processes that were spawned: a CUDA context doesn't survive a fork.
    with ProcessPoolExecutor(builders, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_build, runtime, graph, workspace_bytes): graph for graph in graphs}
        for future in as_completed(futures):
            print(f"{futures[future].name}: {'failed' if future.exception() else 'built'}", flush=True)
    yield from ((graph, future.result) for future, graph in futures.items())


def _build(runtime: RuntimeName, graph: Path, workspace_bytes: int | None) -> BenchPlan:
    library = builder_library(runtime)
    if library is None:
        raise RuntimeError(f"{runtime} can't be imported in another process, expected it there as here")
    return built(library, graph, workspace_bytes)


def _measure(bench: Bench, plan: BenchPlan, out: Path) -> Mapping[str, object]:
    """What there is to measure of one plan; of FP16 also the engine's rates, single batches, and batches of other sizes each."""
    print(f"{plan.name}: built in {plan.build_s:.0f} s{''.join(f'; {note}' for note in plan.notes)}", flush=True)
    folder = out / "versions" / plan.name.replace(".", "-")  # first, because workers are measured with them
    write_version(folder, MODELS / plan.model, plan, bench.library, bench.gpu, ())
    found = bench.passes(plan)
    if plan.precision == "fp16":
        found = {
            **found,
            "rates": bench.engine_rates(plan),
            "single_ms": bench.single_batches(plan),
            "size_change_ms": bench.size_changes(plan),
        }
    return found


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
