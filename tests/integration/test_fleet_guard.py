"""One worker's guard finds a version bad: all leave it, nobody takes it up again, and nothing that it computed is published."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from tests.conftest import TopicFactory
from tests.helpers.store import TestStore
from tests.helpers.topics import read_all
from tests.helpers.traffic import POISON, send_traffic, with_histogram
from tests.helpers.waiting import wait_until
from tests.helpers.workers import Job, WorkerHandle
from worker.control import Command, WorkerState, decode_command, decode_state
from worker.loading import LEAVING_PROBES
from worker.version_choice import VersionId

ROWS = 200
"""At once, to one partition: a batch is large enough to be judged by its distribution."""
WITHIN_S = 1.0
SLOWEST_S = 15.0
"""What a machine that is busy with other things may take, where the median shows that it isn't ours that is slow."""

BAD: Mapping[str, tuple[str, dict[str, Any]]] = {
    "nan": ("fault_share", {"nan_below": 0.0}),
    "drifted": ("shift", {"drift": 3.0}),
    "nan-again": ("fault_share", {"nan_below": -1.0}),
}
"""Version -> the rule that finds it, and what is wrong with it. Each gives its own golden outputs, so each is proved."""


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    store = TestStore(tmp_path / "tiny", options={"max_rows": 256})
    store.publish("v1", spoil=with_histogram)
    return store


@pytest.fixture
def fleet(job: Job, store: TestStore, topics: TopicFactory) -> Job:
    """The job on a store, with topics for commands and states. A batch waits for all rows that come within a second."""
    compacted = {"cleanup.policy": "compact"}
    job.extra = {
        "engine": {"model": str(store.folder), "threads": 1},
        "models": {"interval_s": 0.5, "headroom_bytes": 0},
        "batching": {"max_rows": 256, "coalesce": False, "linger_s": 1.0, "max_wait_s": 2.0},
        "fleet": {
            "control_topic": topics("control", 1, compacted),
            "state_topic": topics("states", 1, compacted),
        },
    }
    return job


def commands(job: Job) -> list[tuple[int, Command]]:
    """Broker time (ms) and content of everything on the control topic."""
    messages = read_all(job.bootstrap, str(job.extra["fleet"]["control_topic"]))
    return [(m.timestamp_ms, decode_command(m.value)) for m in messages if m.value is not None]


def states(job: Job) -> list[tuple[int, WorkerState]]:
    """Broker time (ms) and content of every state that a worker told."""
    messages = read_all(job.bootstrap, str(job.extra["fleet"]["state_topic"]))
    return [(m.timestamp_ms, decode_state(m.value)) for m in messages if m.value is not None]


def serves(worker: WorkerHandle, version: str) -> bool:
    found: Any = json.loads(worker.get("/ready")[1] or "{}")
    return bool(found.get("models", {}).get("versions", {}).get(version) == "serving")


def quarantine_of(job: Job, version: VersionId) -> tuple[int, Command]:
    """Waits for it."""
    found: list[tuple[int, Command]] = []

    def there() -> bool:
        found[:] = [each for each in commands(job) if each[1].version == version]
        return bool(found)

    wait_until(there, f"{version} is quarantined", 60.0)
    return found[0]


def left_after_s(job: Job, since_ms: int, others: set[str]) -> list[float]:
    """Seconds from `since_ms` until each of `others` has said that it serves v1. Waits until all have."""
    when: dict[str, int] = {}

    def all_have() -> bool:
        for at_ms, state in states(job):
            if at_ms >= since_ms and state.serving.name == "v1":
                when.setdefault(state.worker, at_ms)
        return others <= when.keys()

    wait_until(all_have, f"{others} serve v1", 60.0)
    return [(when[worker] - since_ms) / 1000 for worker in sorted(others)]


def test_what_one_guard_finds_all_leave_within_a_second_and_no_newcomer_serves(
    fleet: Job, store: TestStore, record_property: Callable[[str, object], None]
) -> None:
    sent, seconds, finders = 800, [], []
    with ExitStack() as team:
        workers = {f"{fleet.source}-w{n}": team.enter_context(fleet.worker(f"w{n}")) for n in range(3)}
        for worker in workers.values():
            worker.wait_ready()
        send_traffic(fleet, range(sent))
        fleet.wait_done(fleet.ends())
        for version, (rule, wrong) in BAD.items():
            published = store.publish(version, spoil=with_histogram, **wrong)
            for worker in workers.values():
                wait_until(lambda w=worker, v=version: serves(w, v), f"{version} serves", 60.0)  # type: ignore[misc]
            send_traffic(fleet, range(sent, sent + ROWS), promo=POISON, partition=0)
            sent += ROWS
            since_ms, command = quarantine_of(fleet, published)
            assert command.by in workers, "by a worker's guard, not by hand"
            assert command.reason == f"guard:{rule}"
            finders.append(command.by)
            seconds += left_after_s(fleet, since_ms, set(workers) - {command.by})
        newcomer = team.enter_context(fleet.worker("w3"))
        newcomer.wait_ready()
        send_traffic(fleet, range(sent, sent + 800))
        fleet.wait_done(fleet.ends(), 120.0)
        for name, worker in workers.items():
            rolled_back = finders.count(name)
            assert worker.metric('forecast_worker_swaps_total{outcome="rolled_back"}') == rolled_back
            assert worker.metric('forecast_worker_swaps_total{outcome="left"}') == len(BAD) - rolled_back
        for worker in (*workers.values(), newcomer):
            assert worker.stop() == 0, worker.log
    record_property("left_after_s", seconds)
    assert median(seconds) <= WITHIN_S
    assert max(seconds) <= SLOWEST_S
    assert len(commands(fleet)) == len(BAD)
    assert {state.serving.name for _, state in states(fleet) if state.worker == f"{fleet.source}-w3"} == {"v1"}
    assert_sound(fleet)
    flagged = {forecast["fallback_reason"] for _, forecast in fleet.published()}
    assert flagged >= {None, "guard:fault_share", "guard:shift"}


def assert_sound(fleet: Job) -> None:
    """The whole output topic: each event once, all finite, all by v1, no dead letters."""
    fleet.assert_exactly_once()
    forecasts = [forecast for _, forecast in fleet.published()]
    assert {forecast["model_version"] for forecast in forecasts} == {"v1"}
    assert np.isfinite([forecast["quantiles"] for forecast in forecasts]).all()
    assert fleet.letters() == []


def test_killed_while_it_leaves_a_version_it_leaves_it_again(fleet: Job, store: TestStore) -> None:
    """Killed before the fleet was told, it starts with the bad version, whose backup isn't loaded yet, and finds it again."""
    fleet.extra = {**fleet.extra, "input": {"group_instance_id": "pod-0"}}
    sent = 0
    for number, point in enumerate(LEAVING_PROBES):
        name = f"bad{number}"
        with fleet.doomed("w", point, hit=1) as worker:
            send_traffic(fleet, range(sent, sent + 100))
            fleet.wait_done(fleet.ends())
            published = store.publish(name, spoil=with_histogram, nan_below=-float(number))
            wait_until(lambda v=name: states(fleet)[-1][1].serving.name == v, f"{name} serves", 60.0)  # type: ignore[misc]
            send_traffic(fleet, range(sent + 100, sent + 300), promo=POISON, partition=0)
            assert worker.wait_end() == -signal.SIGKILL, f"{point}: {worker.log}"
        with fleet.worker("w") as worker:
            worker.wait_ready()
            fleet.wait_done(fleet.ends())
            assert quarantine_of(fleet, published)[1].reason == "guard:fault_share"
            wait_until(lambda w=worker: serves(w, "v1"), f"v1 serves after {point}")  # type: ignore[misc]
            assert worker.stop() == 0, worker.log
        sent += 300
    assert_sound(fleet)
