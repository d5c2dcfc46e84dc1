"""Swaps between TensorRT plans of two precisions, in one process: under full load, then a thousand with one in five broken.

`python -m bench.swaps_tensorrt --versions A B`, where A and B are folders as `python -m bench tensorrt` writes them. Swapper, loader,
thread and slot are the worker's own; what a worker does with Kafka around them is left out, so a step here is: look for a hand-over,
fill a slot, submit a full batch, collect an earlier one. Writes `bench/results/swaps-tensorrt.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from bench.job import ROOT, Job
from bench.swap_phases import Phases, steps_by_phase
from bench.swap_plans import BROKEN, PlanStore, unspoilt
from bench.swaps import rss_bytes
from schemas.engine_card import CARD_NAME, EngineCard, load_card
from tests.helpers.clock import ManualClock
from tests.helpers.swapping import SCHEMA, Swapping
from worker.cuda import load_cuda
from worker.engine import Engine, Ticket
from worker.model_status import Counts, Outcome
from worker.model_thread import ModelThread, Watching
from worker.plan_loading import load_model
from worker.proving import golden_columns

RESULT = ROOT / "bench" / "results" / "swaps-tensorrt.json"
SLOTS, IN_FLIGHT = 3, 2
LIMIT = 1.5
MOST_GROWTH_PERCENT = 2.0
KEPT = 4
SETTLED = 0.2
"""The first share of the thousand isn't measured: TensorRT and CUDA load code lazily and keep it."""

Columns = Mapping[str, NDArray[np.float32]]


class Running(ManualClock):
    """The real one: a version that is too slow has to be found out."""

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter()


@dataclass(slots=True)
class Load:
    """Full batches through whatever serves, `IN_FLIGHT` at a time. began_s, seconds: of each step. runs: versions as they computed."""

    world: Swapping
    columns: Columns
    rows: int
    began_s: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    flights: deque[tuple[Engine, Ticket]] = field(default_factory=deque)

    def step(self) -> None:
        """One batch more, and an earlier one back. Raises `RuntimeError` if that one isn't one of forecasts."""
        began_s = time.perf_counter()
        self.world.slot.turn_over(lambda engine: any(flying is engine for flying, _ in self.flights))
        engine = self.world.slot.serving
        slot = engine.acquire()
        if slot is None:
            raise RuntimeError(f"no free slot with {len(self.flights)} batches in flight, expected one")
        for name, values in self.columns.items():
            slot.columns[name][: self.rows] = values
        self.flights.append((engine, engine.submit(slot, self.rows)))
        while len(self.flights) > IN_FLIGHT:
            self.collect()
        self.began_s.append(began_s)
        self.seconds.append(time.perf_counter() - began_s)

    def collect(self) -> None:
        """The oldest batch in flight."""
        engine, ticket = self.flights.popleft()
        values, name = engine.collect(ticket).values, engine.spec.version
        if not np.isfinite(values).all() or not float(values.sum()) > 0.0:
            raise RuntimeError(f"{name} computed what are no forecasts: {values[0, 0]}")
        if self.runs[-1:] != [name]:
            self.runs.append(name)
        engine.release(ticket.slot)

    def run(self, seconds: float) -> list[float]:
        """Steps for so long; returns how long each took."""
        ends_s, before = time.perf_counter() + seconds, len(self.seconds)
        while time.perf_counter() < ends_s:
            self.step()
        return self.seconds[before:]


def world_of(folder: Path, versions: Sequence[Path], rows: int) -> tuple[Swapping, PlanStore]:
    """A store with version v0, and a swapper on it that loads plans as a worker does, for batches of so many rows."""
    store = PlanStore(folder / "tiny", versions)
    store.publish("v0")
    settings = _settings(versions[0], rows)

    def make(model: Path, card: EngineCard) -> Engine:
        return load_model(settings, model, card, SCHEMA)

    return Swapping(store, make=make, clock=Running()), store


def _settings(model: Path, rows: int) -> Any:  # noqa: ANN401 - a worker's Settings
    job = Job(
        bootstrap_servers="127.0.0.1:9",
        input_topic="none",
        output_topic="none-out",
        dead_letter_topic="none-dead",
        group="none",
        writer_schema=str(ROOT / "schemas" / "sku_features.avsc"),
        events=1,
        engine="light",
        commit_interval_s=1.0,
        model=str(model),
    )
    return job.settings("engine.runtime=tensorrt", f"engine.slots={SLOTS}", f"batching.max_rows={rows}")


def under_load(load: Load, store: PlanStore, swaps: int, every_s: float) -> dict[str, Any]:
    """Swaps at a fixed pace while batches run without a pause, before and after which they run without swaps."""
    world, phases = load.world, Phases()
    phases.watch(world.loader)
    thread = ModelThread(
        world.swapper, world.handover, Watching(store=store.folder, how="notify", interval_s=every_s / 4)
    )
    quiet_s = min(10 * every_s, 20.0)
    load.run(every_s)
    thread.start()
    try:
        without = load.run(quiet_s)
        during: list[float] = []
        for number in range(1, swaps + 1):
            store.publish(f"v{number}")
            during += load.run(every_s)
            if number > KEPT:
                store.remove(f"v{number - KEPT}")
        without += load.run(quiet_s)
    finally:
        while load.flights:
            load.collect()
        thread.close()
    p99_s = [float(np.quantile(each, 0.99)) for each in (during, without)]
    return {
        "swaps": swaps,
        "every_s": every_s,
        "rows": load.rows,
        "steps": {"during": len(during), "without": len(without)},
        "rows_per_s": {
            "during": load.rows * len(during) / sum(during),
            "without": load.rows * len(without) / sum(without),
        },
        "p50_s": {"during": float(np.median(during)), "without": float(np.median(without))},
        "p99_s": {"during": p99_s[0], "without": p99_s[1]},
        "worst_s": {"during": max(during), "without": max(without)},
        "p99_ratio": p99_s[0] / p99_s[1],
        "met": p99_s[0] <= LIMIT * p99_s[1],
        "each_version_once_in_order": load.runs == [f"v{number}" for number in range(swaps + 1)],
        "runs": len(load.runs),
        "refused": {str(version): reason for version, reason in world.status.refused.items()},
        "loading_s": mean_seconds(world.status.loads),
        "steps_s_by_phase": steps_by_phase(load.began_s, load.seconds, phases.found),
    }


def mean_seconds(loads: Counts) -> dict[str, float]:
    """Phase of loading a version -> seconds that it took on average."""
    return {str(phase): total_s / sum(counts) for phase, (counts, total_s) in loads.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes in use: of the whole GPU, and of this process."""

    device: int
    host: int

    @classmethod
    def now(cls) -> Held:
        """After what nobody refers to has gone."""
        gc.collect()
        memory = load_cuda().memory()
        return cls(device=memory.total_bytes - memory.free_bytes, host=rss_bytes(os.getpid()))


def with_broken(load: Load, store: PlanStore, count: int, most_s: float) -> dict[str, Any]:
    """So many versions one after the other, each fifth a broken one, and some batches by each that serves; fewer after `most_s`."""
    world = load.world
    kinds, refused, wrong, held = list(BROKEN), Counter[str](), [], []
    good, began_s = "v0", time.perf_counter()
    for number in range(1, count + 1):
        if time.perf_counter() - began_s > most_s:
            count = number - 1
            break
        name, kind = f"v{number}", kinds[number // 5 % len(kinds)] if number % 5 == 0 else None
        version = store.publish(name, spoil=unspoilt if kind is None else BROKEN[kind])
        world.settle(4)
        good = name if kind is None else good
        for _ in range(IN_FLIGHT + 2):
            load.step()
        while load.flights:
            load.collect()
        if kind is not None and version in world.status.refused:
            refused[kind] += 1
        if world.serving != good:
            wrong.append(f"{name}: {world.serving} serves, expected {good}; {world.status.refused.get(version, '')}")
        for old in store.folder.glob("v*"):
            if old.name not in {good, str(world.backup), name}:
                store.remove(old.name)
        world.engines.clear()
        held.append(Held.now())
    settled = held[int(len(held) * SETTLED) :]
    return {
        "swaps": count,
        "rows": load.rows,
        "seconds": round(time.perf_counter() - began_s, 1),
        "served": {outcome.value: n for outcome, n in world.status.outcomes.items()}[Outcome.SERVED.value],
        "broken": {kind: sum(kinds[n // 5 % len(kinds)] == kind for n in range(5, count + 1, 5)) for kind in kinds},
        "refused": dict(refused),
        "wrong_version_served": wrong,
        "loading_s": mean_seconds(world.status.loads),
        "memory": [asdict(each) for each in held],
        "device_growth_percent": growth_percent([each.device for each in settled]),
        "host_growth_percent": growth_percent([each.host for each in settled]),
    }


def growth_percent(sizes: Sequence[int]) -> float:
    """From the mean of the first quarter to that of the last: how much is held depends on which two versions are, and they take turns."""
    part = max(1, len(sizes) // 4)
    return 100 * (float(np.mean(sizes[-part:])) / float(np.mean(sizes[:part])) - 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Both, one after the other; the file is written after each."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.swaps_tensorrt", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--versions", type=Path, nargs=2, required=True, help="folders with card.json and a plan")
    parser.add_argument("--swaps", type=int, default=100, help="under load; 0 leaves it out (default %(default)s)")
    parser.add_argument("--every-s", type=float, default=2.0, help="seconds between them (default %(default)s)")
    parser.add_argument(
        "--count", type=int, default=1000, help="with broken ones; 0 leaves it out (default %(default)s)"
    )
    parser.add_argument("--most-s", type=float, default=3600.0, help="end the latter then (default %(default)s)")
    parser.add_argument("--rows", type=int, default=4096, help="of a batch (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    card = load_card(given.versions[0] / CARD_NAME)
    columns = {name: np.resize(each, (given.rows, *each.shape[1:])) for name, each in golden_columns(card).items()}
    result: dict[str, Any] = {"gpu": asdict(load_cuda().gpu()), "versions": [str(path.name) for path in given.versions]}
    for name in [name for name, wanted in (("with_broken", given.count), ("under_load", given.swaps)) if wanted]:
        with tempfile.TemporaryDirectory() as folder:
            world, store = world_of(Path(folder), given.versions, given.rows)
            load = Load(world, columns, given.rows)
            try:
                if name == "with_broken":
                    found = with_broken(load, store, given.count, given.most_s)
                else:
                    found = under_load(load, store, given.swaps, given.every_s)
            finally:
                world.close()
        result[name] = found
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: {k: v for k, v in found.items() if k != "memory"}}, indent=1), flush=True)
    return 0 if all(sound(found) for found in (result.get("with_broken"), result.get("under_load")) if found) else 1


def sound(found: Mapping[str, Any]) -> bool:
    """Whether a part of the result, of either kind, is as it should be."""
    if "p99_ratio" in found:
        return bool(found["met"] and found["each_version_once_in_order"] and not found["refused"])
    growth = (found["device_growth_percent"], found["host_growth_percent"])
    return not found["wrong_version_served"] and max(map(abs, growth)) <= MOST_GROWTH_PERCENT


if __name__ == "__main__":
    sys.exit(main())
