"""Avro schemas from a file or from this package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

Schema: TypeAlias = dict[str, object]
"""An Avro record schema as plain JSON: what `json.loads` gives, without any parser's own keys."""


class SchemaError(ValueError):
    """A schema can't be read, or is no Avro record. The message says where it came from, what was got and expected."""


def load_schema(path: Path | None, name: str) -> Schema:
    """The record schema in the file `path`; or, without a path, the packaged one: `load_schema(None, "sku_features")`.

    Raises `SchemaError` if it can't be read, isn't JSON, or isn't an Avro record schema.
    """
    resource = files("schemas").joinpath(f"{name}.avsc") if path is None else path
    origin = f"packaged schema {name!r}" if path is None else str(path)
    try:
        text = resource.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{origin}: can't be read ({error}); expected a UTF-8 file with an Avro schema") from error
    return schema_from_text(text, origin)


def schema_from_text(text: str, origin: str) -> Schema:
    """The record schema in `text`. `origin` says in error messages where it comes from. Raises `SchemaError`."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SchemaError(f"{origin}: got no JSON ({error}); expected an Avro schema in JSON") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        kind = schema.get("type") if isinstance(schema, dict) else type(schema).__name__
        raise SchemaError(f"{origin}: got {kind!r}, expected an Avro schema of type 'record'")
    if not isinstance(schema.get("fields"), list):
        raise SchemaError(f"{origin}: isn't a valid Avro schema: got no list of fields, expected one")
    try:
        fastavro.parse_schema(schema)
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SchemaError(f"{origin}: isn't a valid Avro schema: {type(error).__name__}: {error}") from error
    return schema
