"""Swaps under full load: a worker that never runs out of events, while versions alternate, and the same without swaps.

`python -m bench swap-load`. Blocks with swaps and blocks without take turns in one run of one worker, in the order A B B A …,
because other work on the machine comes and goes. Then the whole output topic is read.

On a machine with a GPU, `--versions A B --events FILE` swaps between plans: folders as `python -m bench tensorrt` writes them, and
real events as `python -m bench events` does. `--steady` belongs to that: the worker takes events faster than they could be sent before
a block and kept, so they are sent beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.event_file import read_events
from bench.job import ROOT, ContenderError
from bench.machine import load_average, machine
from bench.swap_job import Feed, Place, ready, wait_for
from bench.swap_models import versions_of
from bench.swap_output import problems_of_outcomes, problems_of_runs, read_forecasts, silent
from bench.swap_plans import PlanStore
from bench.swap_steps import Block, judged
from demo.kafka import EmbeddedKafka
from schemas.engine_card import CARD_NAME, load_card
from tests.helpers.store import TestStore
from tests.helpers.workers import WorkerHandle
from worker.model_status import Phase

RESULT = ROOT / "bench" / "results" / "swap-load.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
SWAPS, EVERY_S, PAIRS = 100, 2.0, 4
BATCH_ROWS = 256
"""Many short steps show more of what disturbs them than few long ones."""
BALLAST = 12_000
"""Columns of extra work: a row costs some 40 µs, as the events of the whole run must fit on a disk."""
WARM_UP_S = 15.0
FIRST_EVENTS = 1_000_000
STOCK_S = 10.0
"""Events that are sent beside the worker are so far ahead of it."""
SPARE = 1.25
"""So many times the events that a block will need are there when it begins."""
BUDGET_MS = 1000.0
"""Of a full batch. How busy the machine is must not decide about versions here."""
KEPT_VERSIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """swaps: in all; pairs: of blocks; without_s: of a block without swaps, None if as long as one with; steady: see `Supply`."""

    swaps: int = SWAPS
    pairs: int = PAIRS
    without_s: float | None = None
    steady: bool = False


@dataclass(slots=True, kw_only=True)
class Publishing:
    """Publishes v1, v2, … one after the other, and takes the oldest away."""

    store: TestStore
    digests: dict[str, str] = field(default_factory=dict)
    """Version, in their order -> what its forecasts say that they were computed with: its plan, or its ONNX file."""

    def next(self) -> str:
        """One more version, which CURRENT names then."""
        name = f"v{len(self.digests) + 1}"
        digest = self.store.publish(name).digest
        plans = load_card(self.store.folder / name / CARD_NAME).plans
        self.digests[name] = plans[0].sha256 if plans else digest
        if len(self.digests) > KEPT_VERSIONS:
            self.store.remove([*self.digests][-1 - KEPT_VERSIONS])
        return name


def lag(worker: WorkerHandle) -> int:
    """Events that the worker hasn't read."""
    lines = worker.get("/metrics")[1].splitlines()
    return int(sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith("forecast_worker_lag_records{")))


def serves(worker: WorkerHandle, name: str) -> bool:
    """Whether version `name` serves. Raises `ContenderError` if it was refused."""
    found = ready(worker)
    if name in found.get("refused", {}):
        raise ContenderError(f"{name} was refused: {found['refused'][name]}")
    return bool(found.get("versions", {}).get(name) == "serving")


def run_block(worker: WorkerHandle, publishing: Publishing, swaps: int, seconds: float) -> Block:
    """`seconds` with so many swaps, evenly spread. Raises `ContenderError` if a version doesn't come to serve, or events run out."""
    began_s, load, late = time.monotonic(), load_average(), 0
    for number in range(swaps):
        name = publishing.next()
        time.sleep(max(0.0, began_s + (number + 1) * seconds / swaps - time.monotonic()))
        late += not serves(worker, name)
        wait_for(f"{name} serves", lambda: serves(worker, name))  # noqa: B023
    time.sleep(max(0.0, began_s + seconds - time.monotonic()))
    ended_s, left = time.monotonic(), lag(worker)
    if not left:
        raise ContenderError("the worker ran out of events")
    return Block(swaps=swaps, late=late, began_s=began_s, ended_s=ended_s, load=load, lag_at_end=left)


@dataclass(slots=True, kw_only=True)
class Supply:
    """Events that are there when a block begins, or that are sent beside it.

    left: how many the worker has yet to read. rate_per_s: of the worker, 0 until it was measured. look_s: between two looks; to ask the
    worker takes the time of a step or two of its own. least_left: ever seen since, as a worker says 0 until it has read for a while.
    """

    feed: Feed
    left: Callable[[], int]
    steady: bool
    rate_per_s: float = 0.0
    look_s: float = 0.5
    pause: Callable[[float], None] = time.sleep
    least_left: int = sys.maxsize
    ended: threading.Event = field(default_factory=threading.Event)

    def before(self, seconds: float) -> None:
        """See to it that a block of so many seconds doesn't run out of events."""
        if not self.steady:
            self.feed.send(max(0, int(self.rate_per_s * seconds * SPARE) - self.left()))
            self.feed.flush()
            self.pause(1.0)

    @contextmanager
    def measuring(self, worker: WorkerHandle) -> Iterator[None]:
        """Learn how fast the worker is meanwhile; the fastest counts, as other work on the machine comes and goes."""
        began_s, before = time.monotonic(), worker.metric("forecast_worker_forecasts_total")
        yield
        done = worker.metric("forecast_worker_forecasts_total") - before
        self.rate_per_s = max(self.rate_per_s, done / (time.monotonic() - began_s))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Send events meanwhile, if they are to be: as many as the worker takes, `STOCK_S` seconds ahead.

        Raises what sending raised, also if the body fails for it, and `ContenderError` if the stock fell below a second's need.
        """
        if not self.steady:
            yield
            return
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self._send)
            try:
                yield
            finally:
                self.ended.set()
                sending.result()
        self.feed.flush()
        if self.least_left < self.rate_per_s:
            raise ContenderError(
                f"events came too slowly: {self.least_left:,} were left once, of {self.rate_per_s:,.0f} a second"
            )

    def _send(self) -> None:
        while not self.ended.wait(self.look_s):
            left = self.left()
            if self.rate_per_s:
                self.least_left = min(self.least_left, left)
            self.feed.send(max(0, int((self.rate_per_s or FIRST_EVENTS / WARM_UP_S) * STOCK_S) - left))


def run(place: Place, feed: Feed, schedule: Schedule, steps: Path, **sections: Mapping[str, object]) -> dict[str, Any]:
    """The whole run. The result as it is written, but for the machine."""
    publishing = Publishing(store=place.store)
    publishing.next()
    feed.send(FIRST_EVENTS)
    feed.flush()
    each = schedule.swaps // schedule.pairs
    blocks: list[Block] = []
    with place.worker(steps, **sections) as worker:
        worker.wait_ready()
        supply = Supply(feed=feed, left=lambda: lag(worker), steady=schedule.steady)
        with supply.beside():
            time.sleep(WARM_UP_S / 2)  # its first batches are slower
            with supply.measuring(worker):
                time.sleep(WARM_UP_S / 2)
            if not lag(worker):
                raise ContenderError(
                    "the worker ran out of events before its rate was known; cost a row more (--ballast), or --steady"
                )
            for pair in range(schedule.pairs):
                for count in (each, 0) if pair % 2 == 0 else (0, each):
                    seconds = each * EVERY_S if count else schedule.without_s or each * EVERY_S
                    supply.before(seconds)
                    with supply.measuring(worker):
                        blocks.append(run_block(worker, publishing, count, seconds))
        served = int(worker.metric('forecast_worker_swaps_total{outcome="served"}'))
        refused = int(worker.metric('forecast_worker_swaps_total{outcome="refused"}'))
        loads = {phase: _mean_s(worker, phase) for phase in map(str, Phase) if phase != Phase.SHADOW}
        if worker.stop() != 0:
            raise ContenderError(f"the worker failed:\n{worker.log[-3000:]}")
    return {
        "swaps": {
            "asked": each * schedule.pairs,
            "served": served,
            "refused": refused,
            "every_s": EVERY_S,
            "late": sum(block.late for block in blocks),
        },
        "rows_per_s": supply.rate_per_s,
        "seconds_per_load_phase": loads,
        **judged(np.load(steps), blocks),
        "topic": checked(place, publishing.digests),
    }


def _mean_s(worker: WorkerHandle, phase: str) -> float:
    """How long a phase of loading or closing a version took, on average."""
    total_s, count = (
        worker.metric(f'forecast_worker_load_seconds_{each}{{phase="{phase}"}}') for each in ("sum", "count")
    )
    return total_s / max(1, count)


def checked(place: Place, published: Mapping[str, str]) -> dict[str, object]:
    """The whole output topic. problems: what is lost, doubled, out of order, or by what wasn't published so; empty if nothing.

    published: version -> the digest that its forecasts have to name, in the order of the swaps.
    """
    committed = place.committed()
    found = read_forecasts(place.servers, place.forecasts)
    runs, names = found.runs(), list(published)
    problems = problems_of_outcomes(found.offsets, committed) + problems_of_runs(runs, names)
    strange = found.versions.keys() - published.items()
    problems += [f"{name} ({digest}) wasn't published" for name, digest in sorted(strange)]
    return {
        "events": sum(committed.values()),
        "forecasts": found.rows,
        "problems": problems,
        "versions": len(found.versions),
        "changes_per_partition": {str(partition): len(run) - 1 for partition, run in runs.items()},
        "partitions_without_a_version": silent(runs, names),
        "fallbacks": dict(found.fallbacks),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`; 1 if a swap disturbs the loop more than it may, or a forecast is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench swap-load", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--swaps", type=int, default=SWAPS, help="in all (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of blocks, with and without (default %(default)s)")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "bakery-smoother", help="(default %(default)s)")
    parser.add_argument("--ballast", type=int, default=BALLAST, help="columns of extra work (default %(default)s)")
    parser.add_argument("--rows", type=int, default=BATCH_ROWS, help="per batch (default %(default)s)")
    parser.add_argument("--versions", type=Path, nargs=2, help="folders with plans for the GPU that is here, instead")
    parser.add_argument("--events", type=Path, help="a file of events to send, instead of the bakery's")
    parser.add_argument("--without-s", type=float, help="seconds of a block without swaps (default: as one with)")
    parser.add_argument("--steady", action="store_true", help="send events beside the worker, where cores are many")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    if given.swaps < given.pairs or given.pairs < 1:
        parser.error(f"--swaps: got {given.swaps}, expected at least one for each of the --pairs ({given.pairs})")
    schema, played = read_events(given.events) if given.events else (None, None)
    schedule = Schedule(swaps=given.swaps, pairs=given.pairs, without_s=given.without_s, steady=given.steady)
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as directory:
        folder = Path(directory)
        if given.versions:
            store: TestStore = PlanStore(folder / "store", given.versions)
        else:
            made = versions_of(given.model, ballast=given.ballast, budget_ms=BUDGET_MS)
            store = TestStore(folder / "store", make=made)
        place = Place.make(kafka, "swap-load", folder, store)
        place = replace(place, schema=schema, gpu="real" if given.versions else "simulated")
        feed = Feed(place.servers, place.features, played)
        batching = {"max_rows": given.rows, "coalesce": False}
        found = run(place, feed, schedule, folder / "steps.npy", batching=batching)
    models = [path.name for path in given.versions] if given.versions else [given.model.name]
    result = {"machine": machine(HEAP, JVM_OPTIONS), "model": ", ".join(models), "batch_rows": given.rows, **found}
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "blocks"}, indent=1))
    return 0 if found["met"] and not found["topic"]["problems"] else 1


if __name__ == "__main__":
    sys.exit(main())
