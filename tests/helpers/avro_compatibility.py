"""Avro's rules for reading data of one schema by another, as far as the schemas of this project go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def problems(reader: Any, writer: Any, path: str = "") -> Iterator[str]:
    """Why `reader` couldn't read what `writer` wrote, one sentence each; nothing if it can."""
    if isinstance(writer, list):
        for branch in writer:
            yield from problems(reader, branch, path)
    elif isinstance(reader, list):
        if not any(not list(problems(branch, writer, path)) for branch in reader):
            yield f"{path}: no branch of {reader} reads {writer}"
    elif _name(reader) == _name(writer) == "record":
        yield from _record_problems(reader, writer, path)
    elif _name(reader) == _name(writer) == "array":
        yield from problems(reader["items"], writer["items"], f"{path}[]")
    elif _name(reader) != _name(writer) and _name(reader) not in _PROMOTIONS.get(_name(writer), ()):
        yield f"{path}: {_name(writer)} can't be read as {_name(reader)}"


def _record_problems(reader: Any, writer: Any, path: str) -> Iterator[str]:
    if reader["name"] != writer["name"]:
        yield f"{path}: record {writer['name']} renamed to {reader['name']}"
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        names = [field["name"], *field.get("aliases", [])]
        source = next((written[name] for name in names if name in written), None)
        if source is not None:
            yield from problems(field["type"], source["type"], f"{path}.{field['name']}")
        elif "default" not in field:
            yield f"{path}.{field['name']}: new field without a default"


def _name(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    return kind if isinstance(kind, str) else _name(kind)
