"""What goes over the control topics, as values: commands to all workers, and each worker's state.                  (pure)

Both are Avro in single-object encoding (`C3 01`, fingerprint, content) whatever `wire.framing` says: a quarantine must get
through when the schema registry doesn't. A message that can't be read is an error for the caller to log, never to die of.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import fastavro

from schemas.load import load_schema
from worker.avro import fingerprint
from worker.version_choice import Control, Promotion, VersionId

MAX_TEXT = 1000
"""Longest reason that is sent, characters."""


class Kind(StrEnum):
    """What a command is about."""

    PROMOTE = "promote"
    PIN = "pin"
    QUARANTINE = "quarantine"


class ControlError(ValueError):
    """A message of a control topic can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A wish or a warning. `at_ms`: milliseconds since 1970. `over`: see `Promotion`."""

    model: str
    kind: Kind
    version: VersionId
    reason: str
    by: str
    at_ms: int
    released: bool = False
    over: VersionId | None = None

    @property
    def key(self) -> bytes:
        """What compaction keeps the newest of: one promotion and one pin per model, one quarantine per version."""
        parts = [self.model, self.kind.value]
        if self.kind is Kind.QUARANTINE:
            parts += [self.version.name, self.version.digest]
        return "|".join(parts).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What one worker runs. refused: version name -> reason. held: why it publishes nothing; None if it does."""

    model: str
    worker: str
    serving: VersionId
    backup: str | None
    shadow: str | None
    held: str | None
    refused: Mapping[str, str]
    notes: tuple[str, ...]
    at_ms: int

    @property
    def key(self) -> bytes:
        """One per model and worker."""
        return f"{self.model}|{self.worker}".encode()


class _Codec:
    """One schema: content <-> message."""

    def __init__(self, name: str) -> None:
        schema = load_schema(None, name)
        self._name = name
        self._prefix = b"\xc3\x01" + fingerprint(schema)
        self._schema: Any = fastavro.parse_schema(_without_logical_types(schema))

    def encode(self, content: Mapping[str, object]) -> bytes:
        out = io.BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self._schema, dict(content))
        return out.getvalue()

    def decode(self, message: bytes) -> dict[str, Any]:
        if not message.startswith(self._prefix):
            raise ControlError(
                f"got a message that starts with {message[:10].hex()}, expected {self._prefix.hex()}: "
                f"schema {self._name} in single-object encoding"
            )
        source = io.BytesIO(message[len(self._prefix) :])
        try:
            content: Any = fastavro.schemaless_reader(source, self._schema, None)
        except Exception as error:  # fastavro raises whatever its parts raise
            raise ControlError(f"got no valid {self._name}: {type(error).__name__}: {error}") from error
        if source.tell() != len(message) - len(self._prefix):
            raise ControlError(f"got bytes behind the end of a {self._name}, expected none")
        found: dict[str, Any] = content
        return found


def _without_logical_types(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Times stay numbers: fastavro would make `datetime`s of them, which end in the year 9999."""
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return [_without_logical_types(part) for part in schema] if isinstance(schema, list) else schema


_CONTROL = _Codec("model_control")
_STATE = _Codec("model_state")


def encode_command(command: Command) -> bytes:
    """The message of `command`."""
    over = command.over
    return _CONTROL.encode(
        {
            "model": command.model,
            "kind": command.kind.value,
            "released": command.released,
            "version": command.version.name,
            "digest": command.version.digest,
            "over_version": None if over is None else over.name,
            "over_digest": None if over is None else over.digest,
            "reason": command.reason[:MAX_TEXT],
            "by": command.by[:MAX_TEXT],
            "at": command.at_ms,
        }
    )


def decode_command(message: bytes) -> Command:
    """The command in `message`. Raises `ControlError`."""
    content = _CONTROL.decode(message)
    if content["kind"] not in set(Kind):
        raise ControlError(f"kind: got {content['kind']!r}, expected one of {[kind.value for kind in Kind]}")
    over = content["over_version"], content["over_digest"]
    return Command(
        model=content["model"],
        kind=Kind(content["kind"]),
        version=VersionId(content["version"], content["digest"]),
        reason=content["reason"],
        by=content["by"],
        at_ms=content["at"],
        released=content["released"],
        over=None if None in over else VersionId(*over),
    )


def encode_state(state: WorkerState) -> bytes:
    """The message of `state`."""
    return _STATE.encode(
        {
            "model": state.model,
            "worker": state.worker,
            "serving_version": state.serving.name,
            "serving_digest": state.serving.digest,
            "backup_version": state.backup,
            "shadow_version": state.shadow,
            "held": state.held,
            "refused": [
                {"version": version, "reason": reason[:MAX_TEXT]} for version, reason in sorted(state.refused.items())
            ],
            "notes": [note[:MAX_TEXT] for note in state.notes],
            "at": state.at_ms,
        }
    )


def decode_state(message: bytes) -> WorkerState:
    """The state in `message`. Raises `ControlError`."""
    content = _STATE.decode(message)
    return WorkerState(
        model=content["model"],
        worker=content["worker"],
        serving=VersionId(content["serving_version"], content["serving_digest"]),
        backup=content["backup_version"],
        shadow=content["shadow_version"],
        held=content["held"],
        refused={entry["version"]: entry["reason"] for entry in content["refused"]},
        notes=tuple(content["notes"]),
        at_ms=content["at"],
    )


@dataclass(frozen=True, slots=True)
class Commands:
    """The newest command of each key, of all models."""

    newest: Mapping[bytes, Command]

    @classmethod
    def none(cls) -> Commands:
        """What an empty topic says."""
        return cls(MappingProxyType({}))

    def after(self, command: Command) -> Commands:
        """With `command`, which came later than all others."""
        return Commands(MappingProxyType({**self.newest, command.key: command}))

    def without(self, key: bytes) -> Commands:
        """With the command of `key` withdrawn (a tombstone on the topic)."""
        return Commands(MappingProxyType({k: command for k, command in self.newest.items() if k != key}))

    def about(self, model: str, version: VersionId) -> Command | None:
        """The newest word on the quarantine of `version`, also when it was released; None if there never was one."""
        return next(
            (
                command
                for command in self.newest.values()
                if command.kind is Kind.QUARANTINE and command.model == model and command.version == version
            ),
            None,
        )

    def of(self, model: str) -> Control:
        """What is in force for `model`."""
        mine = [command for command in self.newest.values() if command.model == model and not command.released]
        kinds = {command.kind: command for command in mine if command.kind is not Kind.QUARANTINE}
        pin, promotion = kinds.get(Kind.PIN), kinds.get(Kind.PROMOTE)
        return Control(
            pin=None if pin is None else pin.version,
            promotion=None if promotion is None else Promotion(version=promotion.version, over=promotion.over),
            quarantined=MappingProxyType(
                {
                    command.version: f"{command.reason} (by {command.by})"
                    for command in mine
                    if command.kind is Kind.QUARANTINE
                }
            ),
        )
