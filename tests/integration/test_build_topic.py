"""Calibration rows and demand read from a real topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from demo.registry import EmbeddedRegistry
from engine_build.calibration import Calibration
from engine_build.errors import CalibrationError, SourceError
from engine_build.kafka_access import KafkaAccess, TopicSource, access_from_bootstrap, access_from_settings
from engine_build.topic_rows import calibration_from_topic, demand_from_topic
from schemas.load import load_schema
from tests.helpers.workers import Job, avro, event, features, key

INPUTS: dict[str, int | None] = {"sales": 30, "promo": 30, "as_of": None}
SCHEMA = load_schema(None, "sku_features")


def sent(job: Job, count: int = 700) -> list[tuple[bytes | None, bytes | None, int]]:
    messages: list[tuple[bytes | None, bytes | None, int]] = [
        (key(n), event(n, as_of=19_900 + n % 10), n % 4) for n in range(count)
    ]
    job.send_raw([*messages, (b"gone", None, 0), (b"bad", b"\xc3\x01" + bytes(30), 1)])
    return messages


def read(job: Job, access: KafkaAccess | None = None, **options: Any) -> Calibration:
    access = access or access_from_bootstrap(job.bootstrap)
    # These events have no promotion, so all is there but special days.
    return calibration_from_topic(
        TopicSource(topic=job.source), access, INPUTS, SCHEMA, **{"allow_thin": True, **options}
    )


def test_events_of_the_topic_become_rows_whatever_cannot_be_decoded(job: Job) -> None:
    sent(job)
    found = read(job)
    assert len(found) == 700
    assert set(found.columns) == set(INPUTS)
    assert found.coverage.consecutive_days == 10
    assert found.columns["sales"].sum() == np.sum([features(n)["sales"] for n in range(700)])
    assert [line.split(":")[0] for line in found.coverage.missing()] == ["rows with a holiday or promotion"]
    assert read(job).digest == found.digest
    with pytest.raises(CalibrationError, match="too thin: rows with a holiday or promotion: got 0, expected 25"):
        read(job, allow_thin=False)


def test_only_the_last_days_are_read(job: Job) -> None:
    sent(job)
    span = TopicSource(topic=job.source, days=100 / 86_400_000)  # the timestamps are a millisecond apart
    found = calibration_from_topic(span, access_from_bootstrap(job.bootstrap), INPUTS, SCHEMA, allow_thin=True)
    assert len(found) == 98  # of the last hundred records two are no events


def test_access_comes_from_a_workers_settings_and_confluent_framing_asks_the_registry(
    job: Job, registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    with SchemaRegistryClient({"url": registry.url}) as client:
        schema_id = client.register_schema(f"{job.source}-value", Schema(json.dumps(SCHEMA), "AVRO"))
    prefix = b"\x00" + schema_id.to_bytes(4, "big")
    job.send_raw([(key(n), prefix + avro("sku_features", features(n, 19_900 + n % 9)), n % 4) for n in range(60)])
    path = tmp_path / "worker.toml"
    path.write_text(
        f'[kafka]\nbootstrap.servers = "{job.bootstrap}"\n[kafka.consumer]\n"group.id" = "mine"\n'
        f'[wire]\nframing = "confluent"\n[registry]\nurl = "{registry.url}"\n'
    )
    assert len(read(job, access_from_settings(path))) == 60


def test_demand_is_counted_per_window_and_worker(job: Job) -> None:
    sent(job)
    sizes = demand_from_topic(
        TopicSource(topic=job.source), access_from_bootstrap(job.bootstrap), window_s=0.1, workers=2
    )
    assert sizes.rows.tolist() == [1.0, 50.0]  # 702 records, a millisecond apart
    assert sizes.counts.tolist() == [1.0, 7.0]


def test_what_cannot_be_read_is_told(job: Job, tmp_path: Path) -> None:
    missing = TopicSource(topic="not-there")
    with pytest.raises(SourceError, match="topic not-there: can't be read"):
        calibration_from_topic(missing, access_from_bootstrap(job.bootstrap), INPUTS, SCHEMA)
    job.send_raw([(b"k", b"no event", 0)])
    with pytest.raises(CalibrationError, match="got 1 values in the last 7 days, none of which is an event"):
        read(job)
    (tmp_path / "worker.toml").write_text("[input]\n")
    with pytest.raises(SourceError, match="expected the brokers"):
        access_from_settings(tmp_path / "worker.toml")
