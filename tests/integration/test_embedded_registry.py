from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from demo.registry import EmbeddedRegistry
from tests.helpers.processes import pid_of, process_exists

TEXT = '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "float"}]}'
SCHEMA = Schema(TEXT, "AVRO")


def register(url: str, subject: str) -> int:
    with SchemaRegistryClient({"url": url}) as client:
        schema_id: int = client.register_schema(subject, SCHEMA)
    return schema_id


def fetch(url: str, schema_id: int) -> str:
    with SchemaRegistryClient({"url": url, "max.retries": 0}) as client:
        text: str | None = client.get_schema(schema_id).schema_str
    assert text is not None
    return text


def test_registers_schemas_and_gives_them_back_by_id(registry: EmbeddedRegistry) -> None:
    schema_id = register(registry.url, "by-id-value")
    assert json.loads(fetch(registry.url, schema_id)) == json.loads(TEXT)
    with SchemaRegistryClient({"url": registry.url}) as client:
        assert client.lookup_schema("by-id-value", SCHEMA).schema_id == schema_id


@pytest.mark.kafka
def test_an_outage_keeps_address_and_ids_and_the_end_leaves_nothing() -> None:
    with EmbeddedRegistry() as registry:
        url, directory = registry.url, registry.directory
        assert (directory / "vertx-cache").is_dir(), "its temporary files go with it"
        schema_id = register(url, "outage-value")
        registry.stop()
        assert pid_of(registry) is None
        with pytest.raises(Exception, match="Connection refused"):
            fetch(url, schema_id)
        registry.start()
        assert registry.url == url
        assert json.loads(fetch(url, schema_id)) == json.loads(TEXT)
        pid = pid_of(registry)
        assert pid is not None
    assert not process_exists(pid)
    assert not directory.exists()
