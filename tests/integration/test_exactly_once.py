from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from demo.kafka import EmbeddedKafka
from demo.broken import broken_events, mixed
from tests.helpers.waiting import wait_until
from tests.helpers.workers import Job, WorkerHandle, event, key
from worker.pipeline import PROBES

KILLED = -signal.SIGKILL
POINTS = [point for point in PROBES if point not in {"revoked", "aborted"}]


def test_killed_at_every_point_between_poll_and_commit(job: Job) -> None:
    assert len(POINTS) >= 8
    numbers = iter(range(100_000))
    for point in POINTS:
        job.send([next(numbers) for _ in range(1500)])
        with job.doomed("w", point, hit=3) as worker:
            assert worker.wait_end() == KILLED, f"{point}: {worker.log}"
    ends = job.ends()
    with job.worker("w") as worker:
        job.wait_done(ends)
        assert worker.stop() == 0, worker.log
    job.assert_exactly_once()


def test_killed_while_partitions_are_revoked(job: Job) -> None:
    job.send(range(2000))
    with job.doomed("first", "revoked", hit=1) as first:
        wait_until(lambda: sum(job.committed().values()) > 0, "the first worker commits")
        with job.worker("second") as second:
            assert first.wait_end() == KILLED, first.log
            job.send(range(2000, 4000))
            job.wait_done(job.ends())
            assert second.stop() == 0, second.log
    job.assert_exactly_once()
