"""Confluent framing end to end: events by confluent_kafka's own serializer, forecasts for its own deserializer."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from demo.broken import schema_without
from demo.registry import EmbeddedRegistry
from schemas.load import load_schema
from tests.helpers.commands import call_command
from tests.helpers.topics import read_all
from tests.helpers.waiting import wait_until
from tests.helpers.workers import SCHEMA, Job, features, key

Serialize = Callable[[Mapping[str, object]], bytes]


def plain(schema: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in schema.items() if not name.startswith("__")})


@contextmanager
def serializer(registry: EmbeddedRegistry, topic: str, schema: Mapping[str, Any] = SCHEMA) -> Iterator[Serialize]:
    """confluent_kafka's way to write events; registers `schema` under `<topic>-value`."""
    with SchemaRegistryClient({"url": registry.url}) as client:
        serialize = AvroSerializer(client, plain(schema))
        yield lambda content: bytes(serialize(dict(content), SerializationContext(topic, MessageField.VALUE)) or b"")


def deserialized(registry: EmbeddedRegistry, bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Every message of `topic`, by confluent_kafka's deserializer."""
    with SchemaRegistryClient({"url": registry.url}) as client:
        deserialize = AvroDeserializer(client)
        context = SerializationContext(topic, MessageField.VALUE)
        return [deserialize(message.value, context) for message in read_all(bootstrap, topic)]


@pytest.fixture
def framed(job: Job, registry: EmbeddedRegistry) -> Job:
    job.extra = {
        "wire": {"framing": "confluent"},
        "registry": {"url": registry.url, "timeout_s": 4.0, "retry_after_s": 0.3},
    }
    return job


def test_confluents_clients_write_the_events_and_read_the_forecasts(framed: Job, registry: EmbeddedRegistry) -> None:
    with serializer(registry, framed.source) as serialize:
        good = [(key(number), serialize(features(number)), number % 4) for number in range(200)]
    unknown = b"\x00" + (2_000_000_000).to_bytes(4, "big") + good[0][1][5:]
    framed.send_raw([*good, (b"unknown id", unknown, 0), (b"no framing", b"\xc3\x01" + bytes(20), 1)])
    with framed.worker("w") as worker:
        framed.wait_done(framed.ends())
        assert worker.stop() == 0, worker.log
    forecasts = deserialized(registry, framed.bootstrap, framed.forecasts)
    assert sorted(content["sku_id"] for content in forecasts) == sorted(f"sku{number}" for number in range(200))
    assert {content["as_of"] for content in forecasts} == {dt.date(1970, 1, 1) + dt.timedelta(days=19_900)}
    letters = deserialized(registry, framed.bootstrap, framed.dead_letters)
    assert {letter["key"]: letter["reason"] for letter in letters} == {
        b"unknown id": "unknown_schema_id",
        b"no framing": "bad_magic",
    }
    assert "2000000000 is unknown to the registry" in str([letter["detail"] for letter in letters])
    with SchemaRegistryClient({"url": registry.url}) as client:
        for topic, name in ((framed.forecasts, "sku_forecast"), (framed.dead_letters, "dead_letter")):
            registered = client.get_latest_version(f"{topic}-value")
            assert json.loads(registered.schema.schema_str or "") == json.loads(plain(load_schema(None, name)))


def test_an_outage_stops_only_the_partition_with_a_new_schema(framed: Job, registry: EmbeddedRegistry) -> None:
    newer = schema_without(SCHEMA, "temperature")
    with serializer(registry, framed.source) as serialize:
        known = [serialize(features(number)) for number in range(400)]
    with serializer(registry, f"{framed.source}-newer", newer) as serialize:
        new = serialize(features(1000))
    assert new[:5] != known[0][:5]
    framed.send_raw([(key(number), known[number], number % 4) for number in range(100)])
    with framed.worker("w") as worker:
        framed.wait_done(framed.ends())
        registry.stop()
        try:
            framed.send_raw([(key(number), known[number], number % 4) for number in range(100, 200)])
            framed.wait_done(framed.ends())
            before = framed.ends()
            framed.send_raw([(key(1000), new, 2)])
            framed.send_raw([(key(number), known[number], number % 4) for number in range(200, 400)])
            others = {partition: end for partition, end in framed.ends().items() if partition != 2}
            framed.wait_done(others)
            wait_until(lambda: "partitions [2] wait for a writer schema" in worker.get("/ready")[1], "says why")
            assert worker.get("/ready")[0] == 503
            assert worker.get("/live")[0] == 200
            assert framed.committed()[2] == before[2]
        finally:
            registry.start()
        framed.wait_done(framed.ends())
        worker.wait_ready()
        assert worker.stop() == 0, worker.log
    forecasts = deserialized(registry, framed.bootstrap, framed.forecasts)
    for partition in range(4):
        offsets = [each["source_offset"] for each in forecasts if each["source_partition"] == partition]
        assert offsets == list(range(framed.ends()[partition]))
    assert read_all(framed.bootstrap, framed.dead_letters) == []


def test_without_auto_register_the_output_schemas_must_be_there(framed: Job, registry: EmbeddedRegistry) -> None:
    framed.extra = {**framed.extra, "registry": {**framed.extra["registry"], "auto_register": False}}
    config = framed.config("check", log={"format": "json"})
    ended = call_command("check", "--config", str(config))
    assert ended.code == 2
    assert f"doesn't have this schema under {framed.forecasts}-value; register it" in ended.message
    with SchemaRegistryClient({"url": registry.url}) as client:
        for topic, name in ((framed.forecasts, "sku_forecast"), (framed.dead_letters, "dead_letter")):
            client.register_schema(f"{topic}-value", Schema(plain(load_schema(None, name)), "AVRO"))
    ended = call_command("check", "--config", str(config))
    assert (ended.code, ended.message) == (0, "")
    assert f"confluent framing, registry {registry.url}" in ended.output
