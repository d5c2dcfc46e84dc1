"""How a message's first bytes name the schema that it was written with.

Two ways, behind one protocol: a registry's schema id (Confluent framing), and the fingerprint of a schema that the worker
was given when it started (Avro single-object encoding). Pure: the registry and the clock are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.avro import Schema, fingerprint
from worker.errors import ContractError, SchemaUnavailableError
from worker.records import Reason

CONFLUENT_MAGIC = b"\x00"
SINGLE_OBJECT_MAGIC = b"\xc3\x01"

_MAX_REMEMBERED_UNKNOWN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing can be made of some bytes: a reason code, and what was found and expected."""

    reason: Reason
    detail: str


class Framing(Protocol):
    """From the first `prefix_bytes` bytes of a value to the schema of the rest, and back."""

    @property
    def prefix_bytes(self) -> int:
        """Length of the prefix in bytes; the same for all messages."""
        ...

    def schema_of(self, prefix: bytes) -> Schema | Refusal:
        """The writer schema that `prefix` (exactly `prefix_bytes` long) names, the same object each time.

        Raises `SchemaUnavailableError` if it can't be found out now. May block while it asks.
        """
        ...

    def prefix_for(self, schema: Schema) -> bytes:
        """What to put before a value encoded with `schema`. Raises `ContractError` if that isn't known."""
        ...


class SingleObjectFraming:
    """Avro single-object encoding: C3 01, then the little-endian CRC-64-AVRO fingerprint of one of the given schemas."""

    prefix_bytes = 10

    def __init__(self, schemas: Sequence[Schema]) -> None:
        self._schemas = {SINGLE_OBJECT_MAGIC + fingerprint(schema): schema for schema in schemas}

    def schema_of(self, prefix: bytes) -> Schema | Refusal:
        """See `Framing`. Never blocks."""
        schema = self._schemas.get(prefix)
        if schema is not None:
            return schema
        if not prefix.startswith(SINGLE_OBJECT_MAGIC):
            return _bad_magic(prefix, SINGLE_OBJECT_MAGIC, "Avro single-object encoding")
        known = ", ".join(sorted(each[2:].hex() for each in self._schemas)) or "none"
        return Refusal(
            reason=Reason.UNKNOWN_SCHEMA,
            detail=f"fingerprint {prefix[2:].hex()} is of no known writer schema; known: {known}. "
            "Add the producer's schema to the worker's writer schemas",
        )

    def prefix_for(self, schema: Schema) -> bytes:
        """See `Framing`. Every schema has a fingerprint, so this always succeeds."""
        return SINGLE_OBJECT_MAGIC + fingerprint(schema)


class ConfluentFraming:
    """A zero byte, then the big-endian 4-byte id that a schema registry gave the schema.

    `ask(id)` is the registry: a schema, or a `Refusal` if it has no usable one; raises `SchemaUnavailableError` if it
    can't tell. A schema is remembered for ever (ids are never reused); a refusal for `unknown_ttl_s`, as the id may be
    registered yet; an outage for `outage_ttl_s`, so that each poll waits for one time-out at most. Asking takes about
    `ask_budget_s` at a stretch and a third of the time in the long run: a stream of made-up ids counts as an outage then, as
    the loop must go on. `known` are ids that needn't be asked for. `clock_s`: monotonic seconds.
    """

    prefix_bytes = 5

    def __init__(
        self,
        *,
        ask: Callable[[int], Schema | Refusal],
        clock_s: Callable[[], float],
        known: Mapping[int, Schema] | None = None,
        unknown_ttl_s: float = 60.0,
        outage_ttl_s: float = 1.0,
        ask_budget_s: float = 3.0,
    ) -> None:
        self._ask = ask
        self._clock_s = clock_s
        self._schemas = dict(known or {})
        self._refusals: dict[int, tuple[float, Refusal]] = {}
        self._unknown_ttl_s = unknown_ttl_s
        self._outage_ttl_s = outage_ttl_s
        self._outage: tuple[float, str] | None = None
        self._ask_budget_s = ask_budget_s
        self._spent_s = 0.0  # on asking, less half of the time since
        self._spent_at_s = clock_s()

    def schema_of(self, prefix: bytes) -> Schema | Refusal:
        """See `Framing`. Blocks only for an id that isn't remembered, for as long as `ask` does."""
        if not prefix.startswith(CONFLUENT_MAGIC):
            return _bad_magic(prefix, CONFLUENT_MAGIC, "Confluent framing")
        schema_id = int.from_bytes(prefix[1:], "big")
        schema = self._schemas.get(schema_id)
        if schema is not None:
            return schema
        until_s, refusal = self._refusals.get(schema_id, (0.0, None))
        if refusal is not None and self._clock_s() < until_s:
            return refusal
        return self._asked(schema_id)

    def prefix_for(self, schema: Schema) -> bytes:
        """See `Framing`. Raises `ContractError` unless `schema` is one of the `known` or was asked for before."""
        wanted = fingerprint(schema)
        for schema_id, known in self._schemas.items():
            if known is schema or fingerprint(known) == wanted:
                return CONFLUENT_MAGIC + schema_id.to_bytes(4, "big")
        raise ContractError(
            f"schema {schema.get('name')!r} has no registry id here; got ids {sorted(self._schemas)}. "
            "Register it and pass its id as `known`"
        )

    def _asked(self, schema_id: int) -> Schema | Refusal:
        if self._outage is not None and self._clock_s() < self._outage[0]:
            raise SchemaUnavailableError((), self._outage[1])
        began_s = self._clock_s()
        self._spent_s = max(0.0, self._spent_s - (began_s - self._spent_at_s) / 2)
        self._spent_at_s = began_s
        if self._spent_s >= self._ask_budget_s:
            raise SchemaUnavailableError((), f"schema id {schema_id} waits: asking for unknown ids takes too long")
        try:
            answer = self._ask(schema_id)
        except SchemaUnavailableError as error:
            self._outage = (self._clock_s() + self._outage_ttl_s, str(error))
            raise
        finally:
            self._spent_at_s = self._clock_s()
            self._spent_s += self._spent_at_s - began_s
        self._outage = None
        if isinstance(answer, Refusal):
            # Random bytes after the magic must not fill the memory.
            if len(self._refusals) >= _MAX_REMEMBERED_UNKNOWN:
                self._refusals.clear()
            self._refusals[schema_id] = (self._clock_s() + self._unknown_ttl_s, answer)
        else:
            self._schemas[schema_id] = answer
        return answer


def _bad_magic(prefix: bytes, magic: bytes, framing: str) -> Refusal:
    return Refusal(
        reason=Reason.BAD_MAGIC,
        detail=f"value starts with {prefix[: len(magic)].hex(' ')}, expected {magic.hex(' ')} ({framing})",
    )
