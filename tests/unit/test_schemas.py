"""Walks everything in schemas/: files, docs, defaults, examples, topics, and compatibility with the commits before."""

from __future__ import annotations

import copy
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import fastavro
import pytest

from demo.series import HISTORY_DAYS, HORIZON_DAYS
from schemas.load import load_schema
from schemas.topics import SCHEMAS_DIRECTORY, Compatibility, load_topics
from tests.helpers.avro_compatibility import problems

SCHEMAS = sorted(path.stem for path in SCHEMAS_DIRECTORY.glob("*.avsc"))
EXAMPLES = sorted((SCHEMAS_DIRECTORY / "examples").glob("*.json"))


def without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return [without_logical_types(part) for part in schema] if isinstance(schema, list) else schema


def schema_named(name: str) -> Any:
    return json.loads((SCHEMAS_DIRECTORY / f"{name}.avsc").read_text())


def git(*arguments: str) -> str | None:
    result = subprocess.run(["git", *arguments], cwd=SCHEMAS_DIRECTORY, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None


def test_there_are_schemas_and_examples() -> None:
    assert {"sku_features", "sku_forecast", "dead_letter"} <= set(SCHEMAS)
    assert {path.name.split(".")[0] for path in EXAMPLES} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_parses_and_every_part_has_a_doc(name: str) -> None:
    schema = dict(load_schema(None, name))
    fastavro.parse_schema(schema)
    fields: Any = schema["fields"]
    assert schema["doc"]
    assert schema["namespace"] == "forecast.v1"
    assert [field["name"] for field in fields if not field.get("doc")] == []


def test_defaults_of_feature_arrays_are_as_long_as_their_windows() -> None:
    for field in schema_named("sku_features")["fields"]:
        if isinstance(field["type"], dict) and field["type"]["type"] == "array" and field["name"] != "sales":
            expected = HORIZON_DAYS if field["name"].endswith("_next") else HISTORY_DAYS
            expected = 7 if field["name"] == "weekday_mean" else expected
            assert len(field["default"]) == expected, field["name"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_round_trips(path: Path) -> None:
    schema = without_logical_types(schema_named(path.name.split(".")[0]))
    example = json.loads(path.read_text())
    defaults = {field["name"]: field["default"] for field in schema["fields"] if "default" in field}
    for field in schema["fields"]:
        if (
            "bytes" in (field["type"] if isinstance(field["type"], list) else [field["type"]])
            and example[field["name"]]
        ):
            example[field["name"]] = example[field["name"]].encode("latin-1")  # as Avro writes bytes in JSON
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, example, strict_allow_default=True)
    length = buffer.tell()
    buffer.seek(0)
    result: Any = fastavro.schemaless_reader(buffer, schema, None)
    assert buffer.tell() == length
    assert fastavro.validate(result, schema)
    assert json.dumps(_rounded(result)) == json.dumps(
        _rounded({field["name"]: example.get(field["name"], defaults.get(field["name"])) for field in schema["fields"]})
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    return round(value, 4) if isinstance(value, float) else value


def test_every_topic_names_a_schema_and_every_schema_has_a_topic() -> None:
    assert {topic.schema_file for topic in load_topics().values()} == {f"{name}.avsc" for name in SCHEMAS}


@pytest.mark.parametrize("commit", ["HEAD", "HEAD~1"])
def test_schemas_read_what_the_commit_before_wrote(commit: str) -> None:
    if git("rev-parse", "--verify", "HEAD") is None:
        pytest.skip("no git history here")
    for topic in load_topics().values():
        before = git("show", f"{commit}:./{topic.schema_file}")
        if before is None or topic.compatibility is Compatibility.NONE:
            continue  # new since then, or free to change
        found = list(problems(schema_named(topic.schema_file.removesuffix(".avsc")), json.loads(before)))
        assert found == [], f"{topic.schema_file} against {commit}"


def changed(**fields: Any) -> Any:
    schema = copy.deepcopy(schema_named("dead_letter"))
    for field in schema["fields"]:
        field.update(fields.get(field["name"], {}))
    return schema


def test_rule_checker_accepts_what_avro_accepts() -> None:
    schema = schema_named("dead_letter")
    assert list(problems(schema, schema)) == []
    removed = {**schema, "fields": schema["fields"][:-1]}
    assert list(problems(removed, schema)) == []
    added = {**schema, "fields": [*schema["fields"], {"name": "more", "type": "int", "default": 0}]}
    assert list(problems(added, schema)) == []
    assert list(problems(changed(partition={"type": "long"}), schema)) == []
    assert list(problems(changed(detail={"type": ["null", "string"]}), schema)) == []
    assert list(problems(changed(detail={"name": "text", "aliases": ["detail"]}), schema)) == []
    assert list(problems({"type": "array", "items": "double"}, {"type": "array", "items": "float"})) == []


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (changed(offset={"type": "int"}), ".offset: long can't be read as int"),
        (changed(reason={"type": "float"}), ".reason: string can't be read as float"),
        (changed(reason={"name": "why"}), ".why: new field without a default"),
        (changed(key={"type": "bytes"}), ".key: null can't be read as bytes"),
        (changed(detail={"type": ["null", "int"]}), ".detail: no branch of ['null', 'int'] reads string"),
        ({**schema_named("dead_letter"), "name": "Other"}, ": record DeadLetter renamed to Other"),
        (changed(detail={"type": {"type": "array", "items": "string"}}), ".detail: string can't be read as array"),
    ],
)
def test_rule_checker_finds_what_breaks(reader: Any, message: str) -> None:
    assert list(problems(reader, schema_named("dead_letter"))) == [message]
