"""Versions come and go under real workers on a real broker: nothing is lost, doubled, or computed by what may not serve."""

from __future__ import annotations

import itertools
import json
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TopicFactory
from tests.helpers.commands import call_command
from tests.helpers.store import TestStore, truncated, with_card
from tests.helpers.topics import read_all
from tests.helpers.waiting import slowdown, wait_until
from tests.helpers.workers import Job, WorkerHandle
from worker.control import decode_command, decode_state
from worker.loading import MODEL_PROBES

KILLED = -signal.SIGKILL


@pytest.fixture
def store(tmp_path: Path) -> TestStore:
    store = TestStore(tmp_path / "tiny", options={"max_rows": 256})
    store.publish("v1")
    return store


@pytest.fixture
def fleet(job: Job, store: TestStore, topics: TopicFactory) -> Job:
    """The job on a store, with topics for commands and states."""
    compacted = {"cleanup.policy": "compact"}
    job.extra = {
        "engine": {"model": str(store.folder), "threads": 1},
        "models": {"interval_s": 1.0, "headroom_bytes": 0},
        "fleet": {
            "control_topic": topics("control", 1, compacted),
            "state_topic": topics("states", 1, compacted),
        },
    }
    return job


def sender(job: Job, size: int = 500) -> Iterator[None]:
    """Sends more events each time it is asked for the next."""
    for start in itertools.count(0, size):
        job.send(range(start, start + size))
        yield


def serves(worker: WorkerHandle, version: str) -> bool:
    found: Any = json.loads(worker.get("/ready")[1] or "{}")
    return bool(found.get("models", {}).get("versions", {}).get(version) == "serving")


def runs(job: Job) -> dict[int, list[str]]:
    """Partition -> the versions of its forecasts in the order of their inputs, repetitions left out."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for _, forecast in job.published():
        found[forecast["source_partition"]].append((forecast["source_offset"], forecast["model_version"]))
    return {
        partition: [version for version, _ in itertools.groupby(version for _, version in sorted(rows))]
        for partition, rows in found.items()
    }


def test_versions_alternate_under_load(fleet: Job, store: TestStore) -> None:
    more = sender(fleet)
    names = ["v1", *(f"v{number}" for number in range(2, 8))]
    with fleet.worker("w") as worker:
        worker.wait_ready()
        for name in names[1:]:
            next(more)
            store.publish(name, spoil=lambda _: None)
            wait_until(lambda name=name: (next(more), serves(worker, name))[1], f"{name} serves")  # type: ignore[misc]
            next(more)
        fleet.wait_done(fleet.ends())
        assert worker.metric('forecast_worker_swaps_total{outcome="served"}') == len(names) - 1
        assert worker.metric('forecast_worker_load_seconds_count{phase="prove"}') == len(names)
        assert worker.stop() == 0, worker.log
    fleet.assert_exactly_once()
    assert runs(fleet) == dict.fromkeys(range(4), names)
    assert read_all(fleet.bootstrap, str(fleet.extra["fleet"]["state_topic"]))[-1].value is None  # withdrawn at the end


def test_broken_versions_are_refused_and_the_next_one_is_taken_up(fleet: Job, store: TestStore) -> None:
    more = sender(fleet)
    broken = {
        "cut": ({"spoil": truncated}, "sha256 is"),
        "other": ({"spoil": with_card(onnx_sha256="0" * 64)}, "sha256 is"),
        "inputs": ({"inputs": {"sales": 30}}, "inputs: got"),
        "slow": ({"spoil": with_card(latency_budget_ms=1e-6)}, "latency"),
    }
    with fleet.worker("w") as worker:
        worker.wait_ready()
        for name, (options, _) in broken.items():
            store.publish(name, **options)  # type: ignore[arg-type]
            wait_until(
                lambda name=name: (next(more), name in json.loads(worker.get("/ready")[1])["models"]["refused"])[1],  # type: ignore[misc]
                f"{name} refused",
            )
        assert worker.get("/ready")[0] == 200
        refused = json.loads(worker.get("/ready")[1])["models"]["refused"]
        store.publish("v2")
        wait_until(lambda: (next(more), serves(worker, "v2"))[1], "v2 serves")
        listed = call_command("models", "list", "--config", str(fleet.config("cli"))).output
        fleet.wait_done(fleet.ends())
        assert worker.stop() == 0, worker.log
    for name, (_, reason) in broken.items():
        assert reason in refused[name]
        assert f"{name} (" in listed
    assert "sha256 is" in listed
    fleet.assert_exactly_once()
    assert set(itertools.chain(*runs(fleet).values())) == {"v1", "v2"}


def test_a_quarantined_version_is_left_by_all_within_a_second_and_never_served_by_a_newcomer(
    fleet: Job, store: TestStore
) -> None:
    v2 = store.publish("v2")
    more = sender(fleet)
    control = str(fleet.extra["fleet"]["control_topic"])
    states = str(fleet.extra["fleet"]["state_topic"])

    def told(version: str, count: int) -> bool:
        newest = {m.key: decode_state(m.value) for m in read_all(fleet.bootstrap, states) if m.value is not None}
        return sum(state.serving.name == version for state in newest.values()) >= count

    with ExitStack() as team:
        workers = [team.enter_context(fleet.worker(f"w{number}")) for number in range(3)]
        for worker in workers:
            worker.wait_ready()
        wait_until(lambda: (next(more), told("v2", 3))[1], "all three serve v2")
        config = str(fleet.config("cli"))
        done = call_command("models", "rollback", "--config", config, "--reason", "orders doubled", "--by", "ana")
        assert done.code == 0, done.message
        wait_until(lambda: (next(more), told("v1", 3))[1], "all three serve v1")
        late_after_ms = 1000 * slowdown()
        newcomer = team.enter_context(fleet.worker("w3"))
        newcomer.wait_ready()
        wait_until(lambda: (next(more), newcomer.metric("forecast_worker_forecasts_total") > 0)[1], "the fourth works")
        wait_until(lambda: told("v1", 4), "it says that it serves v1")
        listed = call_command("models", "list", "--config", config).output
        fleet.wait_done(fleet.ends())
        for worker in (*workers, newcomer):
            assert worker.stop() == 0, worker.log
    (message,) = [m for m in read_all(fleet.bootstrap, control) if m.value is not None]
    command = decode_command(message.value or b"")
    assert (command.version, command.reason, command.by) == (v2, "orders doubled", "ana")
    assert "quarantined: orders doubled (by ana)" in listed
    late = [
        forecast
        for _, forecast in fleet.published()
        if forecast["model_version"] == "v2"
        and forecast["generated_at"].timestamp() * 1000 > message.timestamp_ms + late_after_ms
    ]
    assert late == []
    fleet.assert_exactly_once()


def test_killed_at_every_point_of_a_swap_it_starts_with_a_proved_version(fleet: Job, store: TestStore) -> None:
    fleet.extra = {**fleet.extra, "input": {"group_instance_id": "pod-0"}}
    more = sender(fleet)
    versions = ["v1"]

    def works_from(before: int) -> bool:
        next(more)
        return sum(fleet.committed().values()) > before

    for number, point in enumerate(MODEL_PROBES, start=2):
        hit = 2 if point in {"model_checked", "model_loaded", "model_proven", "model_warm"} else 1  # 1: at the start
        before = sum(fleet.committed().values())
        with fleet.doomed("w", point, hit=hit, models={"keep_backup": False, "interval_s": 0.5}) as worker:
            wait_until(lambda: works_from(before), f"works before it is killed at {point}")  # noqa: B023
            store.publish(f"v{number}")
            wait_until(lambda: (next(more), worker.process.poll() is not None)[1], f"killed at {point}")
            assert worker.process.returncode == KILLED, f"{point}: {worker.log}"
        versions.append(f"v{number}")
    store.publish("broken", spoil=truncated)
    with fleet.worker("w") as worker:
        worker.wait_ready()
        next(more)
        assert serves(worker, versions[-1])
        wait_until(
            lambda: "broken" in json.loads(worker.get("/ready")[1])["models"]["refused"], "it refused the broken one"
        )
        fleet.wait_done(fleet.ends())
        assert worker.stop() == 0, worker.log
    fleet.assert_exactly_once()
    for found in runs(fleet).values():
        assert found == sorted(found, key=versions.index)  # no partition went back to an older one
