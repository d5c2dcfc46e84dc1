"""How to reach the topic: by bootstrap servers, or by a worker's settings file, of which only what reading needs is read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from engine_build.errors import SourceError

_OWN: Final = frozenset({"group.id", "enable.auto.commit", "auto.offset.reset"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSource:
    """`topic://NAME?days=N`: the last N days of a topic, counted back from its newest record."""

    topic: str
    days: float = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAccess:
    """librdkafka's settings for reading, the registry's client settings (None: single-object framing), further writer schemas."""

    config: Mapping[str, object] = field(repr=False)
    registry: Mapping[str, object] | None = field(default=None, repr=False)
    writer_schemas: tuple[Path, ...] = ()


def parse_topic_source(text: str) -> TopicSource:
    """The source in `text`. Raises `SourceError`."""
    parts = urlsplit(text)
    options = parse_qs(parts.query, keep_blank_values=True)
    expected = "topic://NAME or topic://NAME?days=7"
    if parts.scheme != "topic" or not parts.netloc or parts.path not in {"", "/"} or set(options) - {"days"}:
        raise SourceError("source", [f"got {text!r}, expected {expected}"])
    try:
        days = float(options.get("days", ["7"])[0])
    except ValueError:
        days = 0.0
    if not 0 < days < float("inf"):
        raise SourceError("source", [f"got {text!r}, expected days above 0, as in {expected}"])
    return TopicSource(topic=parts.netloc, days=days)


def access_from_bootstrap(servers: str, *, registry_url: str | None = None) -> KafkaAccess:
    """Plain access to a broker."""
    return KafkaAccess(
        config={"bootstrap.servers": servers}, registry=None if registry_url is None else {"url": registry_url}
    )


def access_from_settings(path: Path) -> KafkaAccess:
    """Access as a worker has it: `[kafka]` (and `[kafka.consumer]`), `[registry]` and `[wire]` of its settings file.

    Raises `SourceError` if the file can't be read or names no brokers.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        kafka = dict(tables.get("kafka", {}))
        consumer, _ = kafka.pop("consumer", {}), kafka.pop("producer", {})
        config = {**_flat("", kafka, path.parent), **_flat("", consumer, path.parent)}
        wire, registry = tables.get("wire", {}), tables.get("registry", {})
        found = _registry(registry, path.parent) if wire.get("framing") == "confluent" else None
        schemas = tuple(path.parent / each for each in wire.get("writer_schemas", ()))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SourceError(str(path), [f"can't be read as a worker's settings: {error}"]) from error
    if "bootstrap.servers" not in config:
        raise SourceError(str(path), ['got no "bootstrap.servers" in [kafka], expected the brokers'])
    kept = {key: value for key, value in config.items() if key not in _OWN}
    return KafkaAccess(config=kept, registry=found, writer_schemas=schemas)


def _registry(table: Mapping[str, Any], folder: Path) -> dict[str, object]:
    if "url" not in table:
        raise ValueError("wire.framing is confluent, but [registry] has no url")
    settings: dict[str, object] = {"url": table["url"], "timeout": float(table.get("timeout_s", 3.0))}
    if "username" in table:
        settings["basic.auth.user.info"] = f"{table['username']}:{_value(table.get('password', ''), folder)}"
    if "ca_location" in table:
        settings["ssl.ca.location"] = str(folder / table["ca_location"])
    return settings


def _flat(prefix: str, value: Mapping[str, Any], folder: Path) -> dict[str, object]:
    """Unquoted `sasl.mechanism` is a table in a table in TOML; librdkafka's key is both with a dot."""
    found: dict[str, object] = {}
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict) and set(inner) != {"file"}:
            found |= _flat(name, inner, folder)
        else:
            found[name] = _value(inner, folder)
    return found


def _value(value: object, folder: Path) -> object:
    """A value, or the text of the file that it names."""
    if isinstance(value, dict):
        return (folder / value["file"]).read_text(encoding="utf-8").rstrip("\r\n")
    return value
