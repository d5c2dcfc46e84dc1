"""A thousand swaps in one process, one version in five broken: `python -m bench.swaps [COUNT]` writes results/swaps.json."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

from tests.helpers.clock import ManualClock
from tests.helpers.store import TestStore, truncated, with_card
from tests.helpers.swapping import CountedEngine, Swapping
from worker.model_status import Outcome
from worker.shadow import Bounds
from worker.shadow_run import Trial

RESULT = Path(__file__).parent / "results" / "swaps.json"
BROKEN: dict[str, dict[str, Any]] = {
    "truncated": {"spoil": truncated},
    "wrong digest": {"spoil": with_card(onnx_sha256="0" * 64)},
    "other inputs": {"inputs": {"sales": 30}},
    "NaN": {"nan_below": 1e9},
    "too slow": {"spoil": with_card(latency_budget_ms=1e-6)},
    "drifted": {"drift": 1.3},
}
BOUNDS = Bounds(rows=4, max_wape=0.2, max_bias=0.1, max_width_ratio=2.0, max_latency_ratio=1e9)
SETTLED = 0.2
"""The first share of the swaps isn't measured: caches fill."""


class Running(ManualClock):
    """The real one: a version that is too slow has to be found out."""

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter()


def run(count: int, folder: Path) -> dict[str, object]:
    """Publish `count` versions one after the other; each fifth is broken. What became of them, and of the memory."""
    store = TestStore(folder / "tiny")
    store.publish("v0")
    world = Swapping(store, clock=Running(), trial=Trial(share=1.0, max_time_share=1.0, bounds=BOUNDS))
    kinds, refused, sizes = list(BROKEN), Counter[str](), []
    wrong: list[str] = []
    good = "v0"
    began_s = time.perf_counter()
    for number in range(1, count + 1):
        name, kind = f"v{number}", kinds[number // 5 % len(kinds)] if number % 5 == 0 else None
        version = store.publish(name, **({} if kind is None else BROKEN[kind]))
        for _ in range(6):
            world.settle(2)
            world.batch()
        world.settle(4)
        if kind is None:
            good = name
        elif version in world.status.refused:
            refused[kind] += 1
        if world.serving != good:
            wrong.append(f"{name}: {world.serving} serves, expected {good}")
        if number > 4:
            _remove(store, f"v{number - 4}", keep={good, str(world.backup)})
        world.engines = [each for each in world.engines if isinstance(each, CountedEngine) and not each.closings]
        sizes.append(rss_bytes())
    settled = sizes[int(len(sizes) * SETTLED) :]
    outcomes = {outcome.value: n for outcome, n in world.status.outcomes.items()}
    result = {
        "swaps": count,
        "served": outcomes[Outcome.SERVED.value],
        "refused": dict(refused),
        "wrong_version_served": wrong,
        "engines_open_at_the_end": len(world.engines),
        "rss_first_mib": round(settled[0] / (1 << 20), 1),
        "rss_last_mib": round(settled[-1] / (1 << 20), 1),
        "rss_mib_by_tenths": [round(sizes[i] / (1 << 20), 1) for i in range(0, len(sizes), max(1, len(sizes) // 10))],
        "rss_growth_percent": round(100 * (settled[-1] / settled[0] - 1), 2),
        "seconds": round(time.perf_counter() - began_s, 1),
    }
    world.close()
    return result


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _remove(store: TestStore, name: str, keep: set[str]) -> None:
    if name not in keep and (store.folder / name).is_dir():
        store.remove(name)


def main() -> int:
    """Run and write the result."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder:
        result = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, Path(folder))
    text = json.dumps(result, indent=2) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
