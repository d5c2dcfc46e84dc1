"""A replay's model and its schemas: versions of a store, and a schema registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from demo.registry import EmbeddedRegistry
from tests.helpers.replays import Replay
from tests.helpers.workers import MODEL, Job, features, key
from tests.integration.test_registry_framing import deserialized, serializer

SPAN = ("--from", "earliest", "--to", "latest")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Versions v1 and v2 of the demo's model; v1 serves."""
    folder = tmp_path / "store"
    for version in ("v1", "v2"):
        shutil.copytree(MODEL, folder / version)
        card = json.loads((folder / version / "card.json").read_text(encoding="utf-8"))
        (folder / version / "card.json").write_text(json.dumps({**card, "version": version}), encoding="utf-8")
    (folder / "CURRENT").write_text("v1\n", encoding="utf-8")
    return folder


def versions(replay: Replay) -> set[str]:
    return {m["model_version"] for _, m in replay.published()}


def test_the_serving_version_or_a_named_one_and_it_keeps_the_one_it_began_with(job: Job, store: Path) -> None:
    job.extra = {"engine": {"model": str(store)}}
    job.send(range(400))
    serving = Replay(job, "serving", *SPAN, replay={"commit_interval_s": 0.1})
    with serving.process("--rate", "20") as process:
        process.wait_until(lambda: bool(serving.outcomes()), "the first forecasts were committed")
    (store / "CURRENT").write_text("v2\n", encoding="utf-8")
    summary = serving.finish()
    assert summary["resumed"]
    assert summary["model"]["version"] == "v1"
    assert versions(serving) == {"v1"}
    assert len(serving.outcomes()) == 400
    named = Replay(job, "named", *SPAN, "--model", "v2")
    named.finish()
    assert versions(named) == {"v2"}
    path = Replay(job, "path", *SPAN, "--model", str(store / "v1"))
    path.finish()
    assert versions(path) == {"v1"}
    missing = Replay(job, "missing", *SPAN, "--model", "v9").run()
    assert missing.code == 2
    assert "there is no version v9; there are: v1, v2" in missing.log


def test_with_a_registry_the_target_has_the_live_schema_and_another_one_is_refused(
    job: Job, registry: EmbeddedRegistry
) -> None:
    job.extra = {"wire": {"framing": "confluent"}, "registry": {"url": registry.url}}
    with serializer(registry, job.source) as serialize:
        job.send_raw([(key(number), serialize(features(number)), number % 4) for number in range(100)])
    replay = Replay(job, "framed", *SPAN)
    replay.finish()
    forecasts = deserialized(registry, job.bootstrap, replay.forecasts)
    assert sorted(content["sku_id"] for content in forecasts) == sorted(f"sku{number}" for number in range(100))
    assert replay.finish()["run"]["records"] == 0
    other = Replay(job, "other", *SPAN)
    schema = {"type": "record", "name": "Other", "fields": [{"name": "x", "type": "int"}]}
    with SchemaRegistryClient({"url": registry.url}) as client:
        client.register_schema(f"{other.forecasts}-value", Schema(json.dumps(schema), "AVRO"))
    done = other.run()
    assert done.code == 2
    assert f"its subject {other.forecasts}-value has another schema" in done.log
