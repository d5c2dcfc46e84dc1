"""One odd record among good ones, on a real broker with its own limits: it has one outcome, and the others theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.kafka import EmbeddedKafka
from tests.conftest import TopicFactory
from tests.helpers.topics import produce
from tests.helpers.workers import PREFIX, Job, avro, event, features, key

PAST_MS = 1_700_000_000_000
FUTURE_MS = 4_000_000_000_000
LARGE = PREFIX + avro("sku_features", {**features(1), "sku_id": "x" * 600_000})


@pytest.fixture
def tolerant(kafka: EmbeddedKafka, topics: TopicFactory, tmp_path: Path) -> Job:
    """An input topic that takes larger and later records than the output topics do."""
    limits = {"message.timestamp.after.max.ms": str(2**63 - 1), "max.message.bytes": "3000000"}
    return Job(
        bootstrap=kafka.bootstrap_servers,
        source=topics("features", config=limits),
        forecasts=topics("forecasts", config={"cleanup.policy": "compact"}),
        dead_letters=topics("dead", config={"retention.ms": "3600000"}),
        directory=tmp_path,
    )


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_no_single_record_stops_a_partition(tolerant: Job, guarantee: str) -> None:
    tolerant.extra = {"delivery": {"guarantee": guarantee}}
    odd: list[tuple[bytes | None, bytes | None, int]] = [
        (b"k", LARGE, PAST_MS),
        (b"k", b"g" * 999_990, PAST_MS),
        (b"k" * 700_000, b"garbage", PAST_MS),
        (b"k" * 999_990, None, PAST_MS),
        (b"", None, PAST_MS),
        (None, event(3), PAST_MS),
        (None, None, PAST_MS),
        (b"", b"", PAST_MS),
        (key(4), event(4), FUTURE_MS),
        (key(5), b"garbage", FUTURE_MS),
        (key(6), None, FUTURE_MS),
        (key(7), event(7), 0),
    ]
    for number, (record_key, value, timestamp_ms) in enumerate(odd, 100):
        good = (key(number), event(number), PAST_MS, 0)
        produce(tolerant.bootstrap, tolerant.source, [good, (record_key, value, timestamp_ms, 0)])
    with tolerant.worker("w") as worker:
        tolerant.wait_done({0: 2 * len(odd)})
        assert worker.metric('forecast_worker_transactions_total{outcome="aborted"}') == 0
        assert worker.stop() == 0, worker.log
    outcomes = tolerant.outcomes()
    tombstones = [2 * index + 1 for index, (_, value, _) in enumerate(odd) if value is None and index in {4, 10}]
    assert outcomes.keys() == {(0, offset) for offset in range(2 * len(odd)) if offset not in tombstones}
    assert set(outcomes.values()) == {1}
    reasons = {content["offset"] // 2: content["reason"] for _, content in tolerant.letters()}
    assert reasons == {
        0: "oversize",
        1: "bad_magic",
        2: "truncated",
        3: "oversize",
        6: "no_key_no_value",
        7: "truncated",
        9: "truncated",
    }


@pytest.mark.parametrize(
    ("table", "values", "said"),
    [
        ("kafka", {"no.such.key": 1}, "no.such.key"),
        ("kafka.consumer", {"session.timeout.ms": 9_000_000}, "session.timeout.ms"),
        ("kafka.producer", {"message.timeout.ms": 60_000}, "message.timeout.ms"),
        ("delivery", {"transaction_timeout_s": 3600.0}, "lower delivery.transaction_timeout_s"),
    ],
)
def test_what_a_client_refuses_is_a_configuration_error(
    job: Job, table: str, values: dict[str, object], said: str
) -> None:
    with job.worker("w", **{table: values}) as worker:
        assert worker.wait_end() == 2, worker.log
        assert said in worker.log.splitlines()[-1]
        assert "Traceback" not in worker.log
