"""The topics of a deployment, read from `topics.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMAS_DIRECTORY = Path(__file__).parent


class TopicsError(ValueError):
    """The topics file is wrong. The message lists every problem in it."""


class CleanupPolicy(StrEnum):
    """How Kafka discards records: by age, or all but the newest of each key."""

    DELETE = "delete"
    COMPACT = "compact"


class Compatibility(StrEnum):
    """Which readers must cope with a changed schema, in the words of schema registries."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FULL = "FULL"


class Topic(BaseModel):
    """One topic. `schema_file` lies beside this module. `retention_hours` is None where records aren't kept by age."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
    schema_file: Annotated[str, Field(alias="schema", pattern=r"^[a-z0-9_]+\.avsc$")]
    key: str
    partitions: Annotated[int, Field(ge=1, strict=True)]
    cleanup_policy: CleanupPolicy
    retention_hours: Annotated[int, Field(ge=1, strict=True)] | None = None
    compatibility: Compatibility
    doc: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _retention_fits_policy(self) -> Topic:
        if (self.cleanup_policy is CleanupPolicy.DELETE) != (self.retention_hours is not None):
            raise ValueError("retention_hours goes with cleanup_policy = 'delete', and only with it")
        return self

    @property
    def kafka_config(self) -> dict[str, str]:
        """Kafka's own keys and values for creating this topic."""
        config = {"cleanup.policy": self.cleanup_policy.value}
        if self.retention_hours is not None:
            config["retention.ms"] = str(self.retention_hours * 3_600_000)
        return config


@dataclass(frozen=True, slots=True)
class _File:
    path: Path

    def tables(self) -> dict[str, dict[str, object]]:
        try:
            content = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TopicsError(f"{self.path.name} can't be read: {error}") from error
        topics = content.pop("topics", None)
        if content or not isinstance(topics, dict) or not all(isinstance(table, dict) for table in topics.values()):
            raise TopicsError(f"{self.path.name}: expected tables [topics.<name>] and nothing else")
        return topics


def load_topics(path: Path | None = None) -> Mapping[str, Topic]:
    """All topics by name, in the file's order; from `topics.toml` beside this module if `path` is None.

    Raises `TopicsError` with every problem: unknown keys, missing keys, wrong values, a schema file that isn't there.
    """
    source = path or SCHEMAS_DIRECTORY / "topics.toml"
    topics: dict[str, Topic] = {}
    problems: list[str] = []
    for name, table in _File(source).tables().items():
        try:
            topic = Topic.model_validate({"name": name, **table})
        except ValidationError as error:
            problems += [f"{name}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            continue
        topics[name] = topic
        if not (SCHEMAS_DIRECTORY / topic.schema_file).is_file():
            problems.append(f"{name}: schema {topic.schema_file} isn't in {SCHEMAS_DIRECTORY.name}/")
    if problems:
        raise TopicsError("\n".join([f"{source.name}:", *(f"  - {problem}" for problem in problems)]))
    return MappingProxyType(topics)
