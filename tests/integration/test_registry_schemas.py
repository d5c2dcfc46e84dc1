from __future__ import annotations

from demo.registry import EmbeddedRegistry
from schemas.load import load_schema
from worker.framing import ConfluentFraming, Refusal
from worker.registry import RegistrySchemas


def test_packaged_schemas_come_back_from_a_real_registry(registry: EmbeddedRegistry) -> None:
    schemas = RegistrySchemas(url=registry.url, timeout_s=60.0)
    for name in ("sku_features", "sku_forecast", "dead_letter"):
        schema = load_schema(None, name)
        schema_id = schemas.register(f"schemas-{name}-value", schema)
        assert schemas.register(f"schemas-{name}-value", schema) == schema_id
        framing = ConfluentFraming(ask=schemas.schema, clock_s=lambda: 0.0)
        assert framing.schema_of(b"\x00" + schema_id.to_bytes(4, "big")) == schema
        assert framing.prefix_for(schema) == b"\x00" + schema_id.to_bytes(4, "big")
    schemas.close()


def test_an_id_that_a_real_registry_does_not_know_is_refused(registry: EmbeddedRegistry) -> None:
    schemas = RegistrySchemas(url=registry.url, timeout_s=60.0)
    answer = schemas.schema(2_000_000_000)
    assert isinstance(answer, Refusal)
    assert "unknown to the registry" in answer.detail
    schemas.close()
