from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.load import SchemaError, load_schema


@pytest.mark.parametrize("name", ["sku_features", "sku_forecast", "dead_letter"])
def test_packaged_schemas_load(name: str) -> None:
    schema = load_schema(None, name)
    assert schema["type"] == "record"
    assert not any(key.startswith("__") for key in schema)


def test_a_file_wins_over_the_package(tmp_path: Path) -> None:
    path = tmp_path / "own.avsc"
    path.write_text(json.dumps({"type": "record", "name": "Own", "fields": []}))
    assert load_schema(path, "sku_features")["name"] == "Own"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "got no JSON"),
        (b"\xff\xfe", "can't be read"),
        (b"[]", "got 'list', expected an Avro schema of type 'record'"),
        (b'{"type": "array", "items": "int"}', "got 'array', expected"),
        (b'{"type": "record", "name": "R"}', "isn't a valid Avro schema"),
        (b'{"type": "record", "name": "R", "fields": [{"name": "a", "type": "flaot"}]}', "flaot"),
        (b'{"type": "record", "name": "R", "fields": [1]}', "isn't a valid Avro schema"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "own.avsc"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=message) as caught:
        load_schema(path, "sku_features")
    assert str(path) in str(caught.value)


def test_missing_files_and_resources_are_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"none\.avsc: can't be read"):
        load_schema(tmp_path / "none.avsc", "sku_features")
    with pytest.raises(SchemaError, match="packaged schema 'nothing': can't be read"):
        load_schema(None, "nothing")
