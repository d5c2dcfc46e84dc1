"""A thousand versions, one in five broken, published one after the other to a real worker on a real broker.

`python -m bench swaps`. Events come at a steady rate all the time. Each version is given until it serves, is refused, or is rolled
back; then the next one is published. At the end the whole output topic is read: nothing of a broken version may be on it.
First without trials in the shadow, where the guard has to find what only live events show, then a shorter run with them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort

from bench.job import MODEL, ROOT, ContenderError
from bench.machine import load_average, machine
from bench.swap_job import Feed, Place, ready, wait_for
from bench.swap_models import TIMES_SLOWER, Spoiler, broken_kinds, versions_of
from bench.swap_output import problems_of_outcomes, problems_of_runs, read_forecasts
from demo.kafka import EmbeddedKafka
from schemas.model_store import MODEL_NAME
from tests.helpers.store import TestStore
from tests.helpers.workers import WorkerHandle
from worker.version_choice import VersionId

RESULT = ROOT / "bench" / "results" / "swaps.json"
HEAP = "1g"
JVM_OPTIONS = ("-XX:+UseSerialGC",)
SWAPS, SHADOWED = 1000, 105
RATE_PER_S = 2000
BATCH_ROWS = 1024
BROKEN_EVERY = 5
WARM_UP = 0.2
"""The first share of the versions isn't judged for memory: caches and the allocator's arenas fill."""
TOLERANCE = 0.02
WINDOW = 20
KEPT_VERSIONS = 4
BUDGET_TIMES = 5.0
"""A version's latency budget, in full batches of the sound model: slower ones must be refused, a busy machine's not."""
REASONS: Mapping[str, tuple[str, ...]] = {
    "truncated": ("sha256 is",),
    "wrong digest": ("sha256 is",),
    "wrong GPU": ("plan",),
    "NaN, golden batch": ("golden batch",),
    "NaN, live rows": ("guard:fault_share", "shadow over"),
    "ten times slower": ("latency",),
    "drifted": ("guard:drift", "guard:shift", "guard:jump", "guard:canary", "shadow over"),
}
"""Kind -> what the reason for refusing it, or rolling it back, has in it: one of these."""

LIVE = frozenset({"NaN, live rows", "drifted"})
"""Kinds that only live events show: without a shadow, they serve until the guard finds them."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What became of each version. good: in the order in which they served. wrong: what shouldn't have happened, in words."""

    good: list[VersionId] = field(default_factory=list)
    ended: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)

    def broken(self, kind: str, how: str, reason: str) -> None:
        """A broken version was refused or rolled back."""
        self.ended.setdefault(kind, Counter())[how] += 1
        self.examples.setdefault(f"{kind}, {how}", reason)
        if not any(part in reason for part in REASONS[kind]):
            self.wrong.append(f"{kind} {how} for another reason: {reason}")


@contextmanager
def feeding(feed: Feed, rate_per_s: int) -> Iterator[None]:
    """Events at a steady rate, by a thread of this process, inside the `with` block."""
    stop, errors = threading.Event(), list[Exception]()
    began_s = time.monotonic()

    def work() -> None:
        try:
            while not stop.wait(0.02):
                feed.send(int((time.monotonic() - began_s) * rate_per_s) - feed.sent)
        except Exception as error:  # noqa: BLE001 - raised again below: an unloaded run shows nothing
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        feed.flush()
    if errors:
        raise errors[0]


def verdict(worker: WorkerHandle, name: str) -> tuple[str, str] | None:
    """How the version `name` ended: serves, refused or rolled back, and the reason; None while that is open."""
    found = ready(worker)
    for how, where in (("refused", "refused"), ("rolled back", "quarantined")):
        if name in found.get(where, {}):
            return how, str(found[where][name])
    if any(state in {"loading", "proven", "shadow"} for state in found.get("versions", {}).values()):
        return None
    return ("serves", "") if found.get("versions", {}).get(name) == "serving" else None


def publish_all(worker: WorkerHandle, store: TestStore, count: int, kinds: Mapping[str, Spoiler]) -> Run:
    """Publish v1 … v`count`; each `BROKEN_EVERY`-th is broken, the kinds in turn."""
    run, names, there = Run(), list(kinds), ["v0"]
    run.good.append(store.version("v0"))
    for number in range(1, count + 1):
        name = f"v{number}"
        kind = names[number // BROKEN_EVERY % len(names)] if number % BROKEN_EVERY == 0 else None
        version = store.publish(name, spoil=kinds[kind] if kind else _sound)
        ends: list[tuple[str, str]] = []
        wait_for(f"{name} ({kind}) settles", lambda: _settled(worker, name, ends, late=kind in LIVE))  # noqa: B023
        ((how, reason),) = ends
        if kind is None and how == "serves":
            run.good.append(version)
        elif kind is None or how == "serves":
            run.wrong.append(f"{name} ({kind or 'sound'}) {how}: {reason}")
        else:
            run.broken(kind, how, reason.replace(f"{store.folder}/", ""))
        if kind in LIVE:
            time.sleep(0.5)  # what it made until then comes to a commit
        there.append(name)
        while len(there) > KEPT_VERSIONS:
            gone = next(each for each in there if each != run.good[-1].name and each != _backup(worker))
            there.remove(gone)
            store.remove(gone)
        run.rss_bytes.append(rss_bytes(worker.process.pid))
    return run


def _settled(worker: WorkerHandle, name: str, ends: list[tuple[str, str]], *, late: bool) -> bool:
    """Whether `name` has ended; then `ends` says how. late: it may serve at first, and that is no end."""
    found = verdict(worker, name)
    if found is None or (late and found[0] == "serves"):
        return False
    ends.append(found)
    return True


def _backup(worker: WorkerHandle) -> str | None:
    return next((name for name, state in ready(worker).get("versions", {}).items() if state == "backup"), None)


def _sound(_: Path) -> None:
    """Nothing is spoilt."""


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(sizes: Sequence[int]) -> dict[str, object]:
    """Whether memory stayed within `TOLERANCE` of its median after the warm-up, and how it went.

    Judged by the medians of `WINDOW` versions each: a single sample may show a version that is just being loaded.
    """
    judged = sizes[int(len(sizes) * WARM_UP) :]
    median = statistics.median(judged)
    medians = [statistics.median(judged[at : at + WINDOW]) for at in range(0, len(judged), WINDOW)]
    deviation = max(abs(size - median) for size in medians) / median
    return {
        "judged_from_version": len(sizes) - len(judged) + 1,
        "median_mib": _mib(median),
        "least_mib": _mib(min(judged)),
        "most_mib": _mib(max(judged)),
        "deviation": deviation,
        "growth": medians[-1] / medians[0] - 1,
        "flat": deviation <= TOLERANCE,
        "mib_by_fiftieths": [_mib(sizes[i]) for i in range(0, len(sizes), max(1, len(sizes) // 50))],
    }


def _mib(size_bytes: float) -> float:
    return round(size_bytes / (1 << 20), 2)


def measure(place: Place, count: int, kinds: Mapping[str, Spoiler], shadow: Mapping[str, object]) -> dict[str, object]:
    """One worker, `count` versions. Raises `ContenderError` if anything wrong is on the topic."""
    place.store.publish("v0")
    feed, load = Feed(place.servers, place.features), load_average()
    with place.worker(batching={"max_rows": BATCH_ROWS, "coalesce": False}, shadow=shadow) as worker:
        worker.wait_ready()
        began_s = time.monotonic()
        with feeding(feed, RATE_PER_S):
            run = publish_all(worker, place.store, count, kinds)
        seconds = time.monotonic() - began_s
        fallbacks = _labelled(worker, "forecast_worker_fallback_rows_total")
        samples = sum(not line.startswith("#") for line in worker.get("/metrics")[1].splitlines())
        if worker.stop() != 0:
            raise ContenderError(f"the worker failed:\n{worker.log[-3000:]}")
    return {
        "versions": count,
        "served": len(run.good) - 1,
        "broken": {kind: dict(ends) for kind, ends in sorted(run.ended.items())},
        "reasons": run.examples,
        "wrong": run.wrong,
        "seconds": round(seconds, 1),
        "load_before": load,
        "rss": memory(run.rss_bytes),
        "metric_samples_at_the_end": samples,
        "fallback_rows": fallbacks,
        "topic": _topic(place, run.good),
    }


def _topic(place: Place, good: Sequence[VersionId]) -> dict[str, object]:
    committed, found = place.committed(), read_forecasts(place.servers, place.forecasts)
    problems = problems_of_outcomes(found.offsets, committed)
    problems += problems_of_runs(found.runs(), [version.name for version in good])
    counts = Counter[int]()
    for makers in found.makers.values():
        counts.update(makers)
    allowed = {(version.name, version.digest) for version in good}
    broken = {name: counts[place] for (name, digest), place in found.versions.items() if (name, digest) not in allowed}
    return {
        "events": sum(committed.values()),
        "forecasts": found.rows,
        "versions": len(found.versions),
        "of_broken_versions": broken,
        "not_finite": found.not_finite,
        "problems": problems[:20],
        "fallbacks": dict(found.fallbacks),
    }


def _labelled(worker: WorkerHandle, name: str) -> dict[str, float]:
    lines = [line for line in worker.get("/metrics")[1].splitlines() if line.startswith(f"{name}{{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


def full_batch_s(folder: Path, make: Any) -> float:  # noqa: ANN401 - as `TestStore.make`
    """Seconds of a batch of `BATCH_ROWS` rows of a version, by one thread; the best of some."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(make(folder, version="timed") / MODEL_NAME), options)
    feeds = {
        each.name: np.ones((BATCH_ROWS, *(size for size in each.shape if isinstance(size, int))), np.float32)
        for each in session.get_inputs()
    }
    times = []
    for _ in range(20):
        began_s = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - began_s)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write `RESULT`; 1 if anything wrong was published, or memory grew."""
    parser = argparse.ArgumentParser(prog="python -m bench swaps", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--swaps", type=int, default=SWAPS, help="versions without a shadow (default %(default)s)")
    parser.add_argument("--shadowed", type=int, default=SHADOWED, help="versions with one (default %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes (default %(default)s)")
    given = parser.parse_args(arguments)
    with EmbeddedKafka(heap=HEAP, jvm_options=JVM_OPTIONS) as kafka, TemporaryDirectory() as directory:
        folder = Path(directory)
        sound_s = full_batch_s(folder / "sound", versions_of(MODEL))
        ballast = 1000
        while (
            slow_s := full_batch_s(folder / f"slow{ballast}", versions_of(MODEL, ballast=ballast))
        ) < TIMES_SLOWER * sound_s:
            ballast = int(ballast * 1.2)
        make = versions_of(MODEL, budget_ms=BUDGET_TIMES * sound_s * 1000)
        result: dict[str, Any] = {
            "machine": machine(HEAP, JVM_OPTIONS),
            "model": MODEL.name,
            "rate_per_s": RATE_PER_S,
            "full_batch_s": {"rows": BATCH_ROWS, "sound": sound_s, "ten times slower": slow_s},
        }
        trial = {"enabled": True, "share": 1.0, "rows": 2000, "max_time_share": 0.5}
        for name, count, shadow in (("guard", given.swaps, {}), ("shadow", given.shadowed, trial)):
            if count:
                place = Place.make(kafka, name, folder, TestStore(folder / f"store-{name}", make=make))
                result[name] = measure(place, count, broken_kinds(ballast), shadow)
                given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    runs = [result[name] for name in ("guard", "shadow") if name in result]
    return 0 if all(_right(run) for run in runs) else 1


def _right(run: Mapping[str, Any]) -> bool:
    topic = run["topic"]
    return (
        not (run["wrong"] or topic["of_broken_versions"] or topic["not_finite"] or topic["problems"])
        and run["rss"]["flat"]
    )


if __name__ == "__main__":
    sys.exit(main())
