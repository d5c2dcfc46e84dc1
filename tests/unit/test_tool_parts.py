from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker import compose_wire, tool_parts
from worker.errors import ContractError
from worker.settings_model import EngineSettings, RegistrySettings, Settings, WireSettings


class Registry:
    """A registry's client that knows nothing and can be closed."""

    def __init__(self) -> None:
        self.closings: list[str] = []

    def schema(self, schema_id: int) -> None:
        raise AssertionError(f"asked for {schema_id}")

    def register(self, subject: str, schema: object) -> int:
        raise ContractError(f"refused: {subject} {schema is not None}")

    def close(self) -> None:
        self.closings.append("closed")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(compose_wire, "registry_of", lambda _: made)
    return made


def settings(framing: Any) -> Settings:
    return Settings(
        engine=EngineSettings(model=Path("model")),
        wire=WireSettings(framing=framing),
        registry=RegistrySettings(url="http://registry"),
    )


def test_reading_registers_nothing_and_closes_the_registry(registry: Registry) -> None:
    with tool_parts.reading(settings("confluent")) as contract:
        assert contract.framing.prefix_bytes == 5
        assert not registry.closings
    assert len(registry.closings) == 1


def test_reading_without_a_registry(registry: Registry) -> None:
    with tool_parts.reading(settings("single_object")) as contract:
        assert contract.framing.prefix_bytes == 10
        contract.close()
    assert not registry.closings


def test_a_registry_that_refuses_is_closed(registry: Registry) -> None:
    with pytest.raises(ContractError, match="refused"):
        compose_wire.contracts(settings("confluent"))
    assert len(registry.closings) == 1
