"""Avro schemas as this worker sees them: without logical types, names resolved, and what a field's bytes look like.

Logical types are dropped on purpose: they don't change a byte, and a library that turns a date into an object only to
have it turned back is slow, and fails on dates that Python's calendar doesn't have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias, cast

import fastavro

Schema: TypeAlias = Mapping[str, object]
"""An Avro record schema, as JSON gives it or as fastavro's `parse_schema` returns it."""


class Kind(Enum):
    """What the bytes of a field look like, for the types that can be read for many records at once."""

    BOOLEAN = auto()
    INT = auto()
    LONG = auto()
    FLOAT = auto()
    DOUBLE = auto()
    BYTES = auto()
    STRING = auto()
    FLOATS = auto()
    DOUBLES = auto()

    @property
    def is_array(self) -> bool:
        """Whether it is an array of numbers."""
        return self in {Kind.FLOATS, Kind.DOUBLES}

    @property
    def is_number(self) -> bool:
        """Whether it is one number."""
        return self in {Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE}

    @property
    def item_bytes(self) -> int:
        """Bytes of one number of a fixed size; 0 for those of variable size."""
        return _ITEM_BYTES.get(self, 0)


_NAMED_KEYS = ("type", "name", "namespace", "aliases", "symbols", "size", "default")
_FIELD_KEYS = ("name", "type", "default", "aliases")
_ITEM_BYTES = {Kind.BOOLEAN: 1, Kind.FLOAT: 4, Kind.FLOATS: 4, Kind.DOUBLE: 8, Kind.DOUBLES: 8}
_SCALARS = {
    "boolean": Kind.BOOLEAN,
    "int": Kind.INT,
    "long": Kind.LONG,
    "float": Kind.FLOAT,
    "double": Kind.DOUBLE,
    "bytes": Kind.BYTES,
    "string": Kind.STRING,
}
_ARRAYS = {"float": Kind.FLOATS, "double": Kind.DOUBLES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record. `default` counts only if `has_default`; bytes defaults are bytes. `type` is plain."""

    name: str
    type: object
    has_default: bool
    default: object
    aliases: tuple[str, ...]

    @property
    def kind(self) -> Kind | None:
        """None: a type that is read one record at a time."""
        if isinstance(self.type, str):
            return _SCALARS.get(self.type)
        if isinstance(self.type, dict) and self.type["type"] == "array":
            items = self.type["items"]
            return _ARRAYS.get(items) if isinstance(items, str) else None
        return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordType:
    """A record schema without logical types. `parsed` and `named` are fastavro's form of it."""

    name: str
    aliases: tuple[str, ...]
    fields: tuple[Field, ...]
    parsed: dict[str, object]
    named: dict[str, object] = field(default_factory=dict)

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


def record_type_from_schema(schema: Schema) -> RecordType:
    """Raises fastavro's or Python's own errors if `schema` isn't a valid record schema."""
    if schema.get("type") != "record":
        raise ValueError(f"got an Avro {schema.get('type')!r}, expected a record")
    named: dict[str, dict[str, object]] = {}
    parsed = fastavro.parse_schema(cast("dict[str, object]", plain(schema)), named_schemas=named)
    record = cast("dict[str, object]", parsed)
    return RecordType(
        name=str(record["name"]),
        aliases=tuple(cast("list[str]", record.get("aliases", []))),
        fields=tuple(_field(raw) for raw in cast("list[dict[str, object]]", record["fields"])),
        parsed=record,
        named=dict(named),
    )


def _field(raw: dict[str, object]) -> Field:
    return Field(
        name=str(raw["name"]),
        type=raw["type"],
        has_default="default" in raw,
        default=_default(raw["type"], raw.get("default")),
        aliases=tuple(cast("list[str]", raw.get("aliases", []))),
    )


def _default(avro_type: object, value: object) -> object:
    """JSON has no bytes: Avro writes them as a string of code points up to 255."""
    of_bytes = avro_type == "bytes" or (isinstance(avro_type, dict) and avro_type["type"] == "fixed")
    if isinstance(avro_type, list):
        return _default(avro_type[0], value)
    return value.encode("latin-1") if of_bytes and isinstance(value, str) else value


def plain(node: object) -> object:
    """`node` without logical types, docs and foreign keys; `{"type": "int"}` becomes `"int"`. Defaults are kept as is."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return [plain(branch) for branch in node]
    if not isinstance(node, Mapping):
        raise TypeError(f"got {node!r}, expected an Avro type")
    kind = node["type"]
    if not isinstance(kind, str):
        return plain(kind)
    if kind in {"array", "map"}:
        inner = "items" if kind == "array" else "values"
        return {"type": kind, inner: plain(node[inner])}
    return _plain_named(node) if kind in {"record", "error", "enum", "fixed"} else kind


def _plain_named(node: Mapping[str, object]) -> dict[str, object]:
    kept = {key: node[key] for key in _NAMED_KEYS if key in node}
    if "fields" in node:
        kept["fields"] = [
            {key: plain(raw[key]) if key == "type" else raw[key] for key in _FIELD_KEYS if key in raw}
            for raw in cast("list[dict[str, object]]", node["fields"])
        ]
    return kept


def fingerprint(schema: Schema) -> bytes:
    """The 8 bytes, little-endian, of the CRC-64-AVRO fingerprint of the schema's parsing canonical form."""
    canonical = fastavro.schema.to_parsing_canonical_form(cast("dict[str, object]", plain(schema)))
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def zigzag_varint(value: int) -> bytes:
    """`value` as Avro writes an int or a long. Precondition: it fits 64 bits, signed."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
