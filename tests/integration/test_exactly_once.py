from __future__ import annotations

import dataclasses
import json
import signal

import pytest

from demo.broken import broken_events, mixed, schema_without
from demo.events import Event
from demo.kafka import EmbeddedKafka
from tests.conftest import TopicFactory
from tests.helpers.topics import read_all
from tests.helpers.waiting import wait_until
from tests.helpers.workers import SCHEMA, Job, decoded, event, key
from worker.pipeline import PROBES

KILLED = -signal.SIGKILL
POINTS = [point for point in PROBES if point not in {"revoked", "aborted"}]


def test_killed_at_every_point_between_poll_and_commit(job: Job) -> None:
    assert len(POINTS) >= 8
    job.extra = {"input": {"group_instance_id": "pod-0"}}  # the successor needn't wait for the session time-out
    for round_, point in enumerate(POINTS):
        job.send(range(round_ * 1500, (round_ + 1) * 1500))
        with job.doomed("w", point, hit=1 if "commit" in point else 3) as worker:
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


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_come_and_go_under_load(job: Job, protocol: str) -> None:
    job.extra = {"input": {"group_protocol": protocol}}
    sent = iter(range(0, 1_000_000, 100))

    def more() -> None:
        start = next(sent)
        job.send(range(start, start + 100))

    def working(count: float) -> bool:
        more()
        return [worker.get("/ready")[0] for worker in team].count(200) >= count and all(
            worker.metric("forecast_worker_records_total") > 0 for worker in team
        )

    with job.worker("a") as a, job.worker("b") as b:
        team = [a, b]
        wait_until(lambda: working(2), "two workers share the load")
        with job.worker("c") as c:
            team = [a, b, c]
            wait_until(lambda: working(3), "three workers share the load")
            assert c.stop() == 0, c.log
            more()
            assert b.stop() == 0, b.log
            more()
        job.wait_done(job.ends())
        assert a.stop() == 0, a.log
    job.assert_exactly_once()


def test_broker_restarts_under_load(job: Job, kafka: EmbeddedKafka) -> None:
    job.extra = {
        "input": {"group_instance_id": "pod-0"},
        "delivery": {"transaction_timeout_s": 6.0, "revoke_budget_s": 2.0},
    }
    job.send(range(3000))
    with job.worker("w") as worker:
        wait_until(lambda: worker.metric("forecast_worker_records_total") > 500, "the worker is at work")
        kafka.stop()
        kafka.start()
        job.send(range(3000, 5000))
        ends = job.ends()
        done_or_gone = lambda: job.is_done(ends) or worker.process.poll() is not None  # noqa: E731
        wait_until(done_or_gone, "the worker goes on, or leaves")
        # Where a call into librdkafka never came back, or the commit's outcome is unknown, the worker leaves.
        code = worker.process.poll()
        assert code in {None, 3, 4}, worker.log
    with job.worker("w") as successor:
        successor.wait_ready()
        job.wait_done(ends)
        assert successor.stop() == 0, successor.log
    job.assert_exactly_once()


def test_second_worker_with_the_same_transactional_id_fences_the_first(job: Job) -> None:
    job.send(range(1000))
    with job.worker("same") as first:
        wait_until(lambda: sum(job.committed().values()) > 0, "the first worker commits")
        with job.worker("same") as second:
            second.wait_ready()
            job.send(range(1000, 3000))
            assert first.wait_end() == 4, first.log
            assert "Another worker has taken over this transactional.id" in first.log
            assert "Traceback" not in first.log
            job.wait_done(job.ends())
            assert second.stop() == 0, second.log
    job.assert_exactly_once()


def test_sigterm_in_mid_batch_drains(job: Job) -> None:
    job.send(range(20_000))
    with job.worker("w", batching={"max_rows": 4096, "linger_s": 5.0, "max_wait_s": 9.0}) as worker:
        wait_until(lambda: worker.metric("forecast_worker_records_total") > 0, "records are gathered")
        assert worker.stop() == 0, worker.log
        assert "draining" in worker.log
    done = sum(job.committed().values())
    assert 0 < done == len(job.published())
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    job.assert_exactly_once()


def test_every_kind_of_broken_record_becomes_a_dead_letter_among_good_ones(job: Job) -> None:
    foreign = job.directory / "foreign.avsc"
    foreign.write_text(json.dumps(schema_without(SCHEMA, "sales")), encoding="utf-8")
    good = [Event(key=key(number), value=event(number)) for number in range(2000)]
    broken = broken_events(good[0], SCHEMA, max_value_bytes=20_000)
    stream = list(mixed(good, broken, one_in=50))
    job.send_raw([(each.key, each.value, i % 4) for i, each in enumerate(stream)])
    job.extra = {"input": {"max_value_bytes": 20_000}, "wire": {"writer_schemas": [str(foreign)]}}
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    job_inputs = {(r.partition, r.offset): r for r in job.inputs()}
    letters = job.letters()
    reasons = {each.reason.value for each in broken}
    assert reasons == {letter["reason"] for _, letter in letters}
    for message, letter in letters:
        original = job_inputs[letter["partition"], letter["offset"]]
        assert (letter["key"], letter["topic"]) == (original.key, job.source)
        assert letter["value"] == (None if original.value is None else original.value[:20_000])
        assert message.partition == original.partition
        assert round(letter["timestamp"].timestamp() * 1000) == original.timestamp_ms
        assert message.timestamp_ms > original.timestamp_ms, "retention counts from the rejection"
    assert len(job.published()) == len(good)
    for partition in range(4):
        offsets = [content["source_offset"] for m, content in job.published() if m.partition == partition]
        assert offsets == sorted(offsets)
        assert {content["source_partition"] for m, content in job.published() if m.partition == partition} == {
            partition
        }
    assert sum(job.outcomes().values()) == len(stream)
    assert set(job.outcomes().values()) == {1}


def test_tombstones_pass_and_coalescing_keeps_each_keys_last(job: Job) -> None:
    sku = [(key(1), event(1, as_of), 0) for as_of in range(19_000, 19_300)]
    job.send_raw([*sku, (key(2), event(2), 0), (key(2), None, 0), (key(3), None, 0), (key(3), event(3), 0)])
    with job.worker("w", batching={"coalesce": True, "linger_s": 0.4, "max_wait_s": 2.0}) as worker:
        job.wait_done(job.ends())
        wait_until(lambda: worker.metric("forecast_worker_superseded_total") > 0, "superseded events are counted")
        assert worker.stop() == 0, worker.log
    last = {m.key: m.value for m in read_all(job.bootstrap, job.forecasts)}
    assert last[key(2)] is None
    assert decoded("sku_forecast", last[key(1)])["source_offset"] == 299
    assert decoded("sku_forecast", last[key(3)])["source_offset"] == 303


def test_at_least_once_loses_nothing(job: Job) -> None:
    job.extra = {"delivery": {"guarantee": "at_least_once"}}
    job.send(range(3000))
    with job.doomed("w", "after_commit", hit=1) as worker:
        assert worker.wait_end() == KILLED, worker.log
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    assert job.outcomes().keys() == {(r.partition, r.offset) for r in job.inputs()}


def test_static_member_comes_back_without_a_rebalance(job: Job) -> None:
    job.extra = {"input": {"group_instance_id": "pod-0"}}
    job.send(range(500))
    for start in (500, 1000):
        with job.worker("w") as worker:
            job.wait_done(job.ends())
            assert worker.stop() == 0, worker.log
        job.send(range(start, start + 500))
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    job.assert_exactly_once()


def test_breaker_stops_before_the_topic_is_drained_into_dead_letters(job: Job) -> None:
    job.send_raw([(key(n), b"not avro at all", n % 4) for n in range(5000)])
    with job.worker("w", breaker={"window_records": 500}) as worker:
        wait_until(
            lambda: worker.get("/ready")[0] == 503 and "breaker" in worker.get("/ready")[1], "unready, with reason"
        )
        assert "bad_magic" in worker.get("/ready")[1]
        assert worker.get("/live")[0] == 200
        assert worker.stop() == 0, worker.log
    assert len(job.letters()) < 1000
    assert sum(max(0, offset) for offset in job.committed().values()) == len(job.letters())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_stand_by_without_partitions_is_ready(job: Job, topics: TopicFactory, protocol: str) -> None:
    single = dataclasses.replace(job, source=topics("single", partitions=1), partitions=1)
    single.extra = {"input": {"group_protocol": protocol}}
    with single.worker("a") as a:
        a.wait_ready()
        with single.worker("b") as b:
            b.wait_ready()
            assert sorted(w.metric("forecast_worker_assigned_partitions") for w in (a, b)) == [0, 1]
            assert b.stop() == 0, b.log
        assert a.stop() == 0, a.log
