"""docs/output-topic.md, held against a real broker and registry: its own examples read the forecasts, and what each client
makes of them is what the worker's decoder makes of them."""

from __future__ import annotations

import datetime as dt
import json
import re
import shlex
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.artifacts import fetch_all, kafka_jars, read_lock
from demo.kafka import EmbeddedKafka
from demo.registry import EmbeddedRegistry
from schemas.load import load_schema
from tests.helpers.kcat import find_kcat
from tests.helpers.other_clients import find_client, run_client
from tests.helpers.topics import Stored, read_all, read_messages
from tests.helpers.workers import ROOT, Job, event, features, key
from tests.integration.test_registry_framing import serializer
from worker.framed_reader import FramedReader
from worker.framing import ConfluentFraming, SingleObjectFraming
from worker.registry import RegistrySchemas

PAGE = ROOT / "docs" / "output-topic.md"
JARS = ROOT / "tests" / "helpers"
OTHERS = "tools/other_clients.sh makes one, and OTHER_CLIENTS names its folder"
EVENTS = 120
WITHDRAWN = 7

Forecasts = dict[str, dict[str, Any]]


def blocks(language: str) -> list[str]:
    """The page's code blocks in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def published(kafka: EmbeddedKafka, registry: EmbeddedRegistry, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A worker has forecast every event, a product was delisted, and keys have two forecasts each."""
    names = ("contract-features", "contract-forecasts", "contract-letters")
    for name in names:
        kafka.create_topic(name, 4, {"cleanup.policy": "compact"} if name == names[1] else None)
    job = Job(
        bootstrap=kafka.bootstrap_servers,
        source=names[0],
        forecasts=names[1],
        dead_letters=names[2],
        directory=tmp_path_factory.mktemp("contract"),
        extra={"wire": {"framing": "confluent"}, "registry": {"url": registry.url}, "output": {"headers": True}},
    )
    with serializer(registry, job.source) as serialize:
        for as_of in (19_900, 19_901):
            numbers = range(EVENTS)
            job.send_raw([(key(n), serialize({**features(n), "as_of": as_of}), n % 4) for n in numbers])
    job.send_raw([(key(WITHDRAWN), None, WITHDRAWN % 4), (b"broken", b"\x00", 0)])
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    return job


@pytest.fixture(scope="module")
def expected(published: Job, registry: EmbeddedRegistry) -> Forecasts:
    """The latest forecast of each key, by the worker's own decoder. Dates as days, times as milliseconds."""
    latest: Forecasts = {}
    with closing(RegistrySchemas(url=registry.url, timeout_s=60.0)) as schemas:
        framing = ConfluentFraming(ask=schemas.schema, clock_s=lambda: 0.0)
        reader = FramedReader(load_schema(None, "sku_forecast"), framing)
        for message in read_all(published.bootstrap, published.forecasts):
            name = (message.key or b"").decode()
            if message.value is None:
                latest.pop(name, None)  # what it withdraws may be compacted away
                continue
            content = reader.read(message.value)
            assert isinstance(content, dict)
            latest[name] = content
    assert len(latest) == EVENTS - 1
    assert {content["as_of"] for content in latest.values()} == {19_901}
    return latest


def here(text: str, job: Job, registry: EmbeddedRegistry) -> str:
    """The page's text with this test's addresses and topic in it."""
    core = registry.url.removesuffix("/ccompat/v7") + "/registry/v2"
    places = {
        "http://localhost:8081/apis/registry/v2": core,
        "http://localhost:8081": registry.url,
        "localhost:9092": job.bootstrap,
        "sku-forecasts": job.forecasts,
    }
    assert all(place in text for place in ("localhost:8081", "localhost:9092", "sku-forecasts"))
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)


def days(date: dt.date) -> int:
    return (date - dt.date(1970, 1, 1)).days


def test_confluents_avro_deserializer_gives_the_same_values(
    published: Job, registry: EmbeddedRegistry, expected: Forecasts
) -> None:
    names: dict[str, Any] = {}
    exec(compile(here(blocks("python")[0], published, registry), "output-topic.md", "exec"), names)
    latest: Forecasts = names["latest"]
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    plain = {
        name: {
            **content,
            "as_of": days(content["as_of"]),
            "generated_at": round((content["generated_at"] - epoch) / dt.timedelta(milliseconds=1)),
        }
        for name, content in latest.items()
    }
    assert plain == expected


@pytest.mark.skipif(find_kcat() is None, reason="no kcat with Avro on the path; tools/build_kcat.sh builds one")
def test_kcat_gives_the_same_values(published: Job, registry: EmbeddedRegistry, expected: Forecasts) -> None:
    (command,) = (block for block in blocks("sh") if block.startswith("kcat "))
    words = shlex.split(here(command, published, registry))
    words[0] = find_kcat() or "kcat"
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    latest: Forecasts = {}
    for line in done.stdout.splitlines():
        name, _, content = line.partition(" ")
        if content == "NULL":
            latest.pop(name, None)
        else:
            latest[name] = without_branches(json.loads(content))
    assert latest.keys() == expected.keys()
    for name, record in latest.items():
        assert record == {field: as_float32(value) for field, value in expected[name].items()}, name


def without_branches(content: dict[str, Any]) -> dict[str, Any]:
    """Avro's JSON names a union's branch; every float is made what it was, a float32."""
    reason = content["fallback_reason"]
    return {
        **{field: as_float32(value) for field, value in content.items()},
        "fallback_reason": reason["string"] if isinstance(reason, dict) else reason,
    }


def as_float32(value: Any) -> Any:
    """Every float as the float32 it names: programs print a float32 with as few digits as say which, or with more."""
    if isinstance(value, float):
        return float(np.float32(value))
    return [as_float32(each) for each in value] if isinstance(value, list) else value


@pytest.mark.skipif(shutil.which("javac") is None, reason="no javac on the path")
def test_java_gives_the_same_values(
    published: Job, registry: EmbeddedRegistry, expected: Forecasts, tmp_path: Path
) -> None:
    source = tmp_path / "Forecasts.java"
    source.write_text(here(blocks("java")[0], published, registry))
    jars = [*kafka_jars(), *fetch_all(read_lock(JARS / "serde_jars.lock"), "Apicurio's Avro deserializer")]
    class_path = ":".join([*map(str, jars), str(tmp_path)])
    subprocess.run(["javac", "-cp", class_path, str(source)], check=True, timeout=120)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    done = subprocess.run(
        ["java", quiet, "-cp", class_path, "Forecasts"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    latest: Forecasts = {}
    for line in done.stdout.splitlines():
        date, name, content = line.split(" ", maxsplit=2)
        record = json.loads(content)
        latest[name] = {field: as_float32(value) for field, value in record.items()}
        assert days(dt.date.fromisoformat(date)) == record["as_of"]
    assert latest.keys() == expected.keys()
    for name, record in latest.items():
        assert record == {field: as_float32(value) for field, value in expected[name].items()}, name


@pytest.mark.skipif(find_client("spark") is None, reason=f"no PySpark; {OTHERS}")
def test_spark_gives_the_same_values(
    published: Job, expected: Forecasts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = fetch_all(read_lock(JARS / "spark_jars.lock"), "Spark's Kafka source")
    script = tmp_path / "forecasts.py"
    text = (
        blocks("python")[2].replace("localhost:9092", published.bootstrap).replace("sku-forecasts", published.forecasts)
    )
    script.write_text(f"{text}\nfor line in forecasts.toJSON().collect():\n    print(line)\n")
    monkeypatch.chdir(ROOT)
    options = (
        "--conf spark.ui.enabled=false --conf spark.sql.session.timeZone=UTC --conf spark.sql.shuffle.partitions=2"
    )
    submit = f"--master local[1] --jars {','.join(map(str, jars))} {options} pyspark-shell"
    latest: Forecasts = {}
    for line in run_client("spark", script, PYSPARK_SUBMIT_ARGS=submit):
        row = json.loads(line)
        latest[row["key"]] = {"fallback_reason": None, **row["forecast"]}
    assert_same(latest, expected)


@pytest.mark.skipif(find_client("flink") is None, reason=f"no PyFlink; {OTHERS}")
def test_flink_sql_gives_the_same_values(
    published: Job, registry: EmbeddedRegistry, expected: Forecasts, tmp_path: Path
) -> None:
    jars = fetch_all(read_lock(JARS / "flink_jars.lock"), "Flink's Kafka connector")
    (block,) = (block for block in blocks("sql") if "upsert-kafka" in block)
    create = here(block, published, registry).partition(";")[0]
    schema: Any = load_schema(None, "sku_forecast")
    fields = [str(field["name"]) for field in schema["fields"]]
    script = tmp_path / "forecasts.py"
    script.write_text(
        f"""
import json
from pyflink.table import EnvironmentSettings, TableEnvironment
tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
tables.get_config().set("pipeline.jars", {";".join(f"file://{jar}" for jar in jars)!r})
tables.get_config().set("parallelism.default", "1")
tables.execute_sql({create!r})
query = "SELECT * FROM forecasts /*+ OPTIONS('scan.bounded.mode'='latest-offset') */"
latest = {{}}
with tables.execute_sql(query).collect() as rows:
    for row in rows:
        name, *values = row
        if row.get_row_kind().name in ("DELETE", "UPDATE_BEFORE"):
            latest.pop(name, None)
        else:
            latest[name] = dict(zip({fields!r}, values))
for name, content in latest.items():
    print(json.dumps([name, content], default=str))
"""
    )
    assert_same(dict(json.loads(line) for line in run_client("flink", script)), expected)


def assert_same(latest: Forecasts, expected: Forecasts) -> None:
    """The records with dates and times as text (UTC) are those of the worker's own decoder."""
    assert latest.keys() == expected.keys()
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for name, content in latest.items():
        generated_at = dt.datetime.fromisoformat(content["generated_at"]).replace(tzinfo=dt.UTC)
        record = {
            **{field: as_float32(value) for field, value in content.items()},
            "as_of": days(dt.date.fromisoformat(content["as_of"])),
            "generated_at": round((generated_at - epoch) / dt.timedelta(milliseconds=1)),
        }
        assert record == {field: as_float32(value) for field, value in expected[name].items()}, name


def test_the_python_example_without_a_registry(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.send(range(40))
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[1], "output-topic.md", "exec"), names)
    schema = load_schema(None, "sku_forecast")
    reader = FramedReader(schema, SingleObjectFraming([schema]))
    messages = read_all(job.bootstrap, job.forecasts)
    assert len(messages) == 40
    for message in messages:
        assert message.value is not None
        ours, theirs = reader.read(message.value), names["decode"](message.value)
        assert isinstance(ours, dict)
        assert theirs["as_of"] == dt.date(1970, 1, 1) + dt.timedelta(days=int(str(ours["as_of"])))
        assert theirs["quantiles"] == ours["quantiles"]
        assert {field: theirs[field] for field in theirs if field not in {"as_of", "generated_at"}} == {
            field: ours[field] for field in ours if field not in {"as_of", "generated_at"}
        }
    with pytest.raises(ValueError, match="written with another schema"):
        names["decode"](event(1))


def test_key_partition_timestamp_and_headers_are_as_the_page_says(published: Job, expected: Forecasts) -> None:
    inputs: dict[tuple[int, int], Stored] = {(r.partition, r.offset): r for r in published.inputs()}
    by_key: dict[bytes, list[Stored]] = {}
    for message in read_all(published.bootstrap, published.forecasts):
        by_key.setdefault(message.key or b"", []).append(message)
    for name, content in expected.items():
        assert name == f"{content['sku_id']}|{content['store_id']}"
        last = by_key[name.encode()][-1]
        source = inputs[content["source_partition"], content["source_offset"]]
        assert (last.partition, last.timestamp_ms) == (source.partition, source.timestamp_ms)
    assert by_key[key(WITHDRAWN)][-1].value is None
    for each in read_messages(published.bootstrap, published.forecasts):
        headers = dict(each.headers() or [])
        wanted = (
            {"model", "model_version", "engine_digest", "precision", "source"} if each.value() is not None else set()
        )
        assert headers.keys() == wanted


def test_every_field_of_the_schema_is_on_the_page() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Fields")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    fields: Any = load_schema(None, "sku_forecast")["fields"]
    assert named == {field["name"] for field in fields}
    for block in blocks("sql"):
        if "PRIMARY KEY (" in block:
            assert all(field["name"] in block for field in fields)
