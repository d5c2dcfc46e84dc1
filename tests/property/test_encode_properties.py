from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.load import load_schema
from tests.helpers.avro import Json, encoded
from worker.avro import plain
from worker.encode import LATEST_MS, DeadLetterEncoder, ForecastEncoder, Provenance, echo_fields_of
from worker.records import Reason, Record, Rejection

FEATURES = load_schema(None, "sku_features")
PACKAGED = load_schema(None, "sku_forecast")
ECHO = echo_fields_of(FEATURES, PACKAGED)
TEXT = st.text(st.characters(codec="utf-8"), max_size=70)
INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)


@st.composite
def forecast_schemas(draw: st.DrawFn) -> Json:
    """The packaged schema, with its own fields in another order, and some left out."""
    fields: list[Any] = list(PACKAGED["fields"])  # type: ignore[call-overload]
    rest = [field for field in fields[len(ECHO) :] if field["name"] == "quantiles" or draw(st.booleans())]
    return {**PACKAGED, "fields": fields[: len(ECHO)] + draw(st.permutations(rest))}


def without_logical_types(schema: Json) -> Json:
    """So that fastavro gives numbers for dates."""
    stripped = plain(schema)
    assert isinstance(stripped, dict)
    return stripped


@given(
    schema=forecast_schemas(),
    rows=st.lists(st.tuples(TEXT, TEXT, INT, INT, LONG), min_size=0, max_size=8),
    horizon=st.integers(1, 70),
    levels=st.lists(st.floats(0.125, 0.875, width=32), min_size=1, max_size=4),
    provenance=st.builds(
        Provenance,
        model=TEXT,
        model_version=TEXT,
        engine_digest=TEXT,
        precision=TEXT,
        fallback_reason=st.none() | TEXT,
    ),
    generated_at_ms=LONG,
    seed=st.integers(0, 2**32 - 1),
)
def test_messages_are_what_fastavro_writes_and_reads(
    schema: Json,
    rows: list[tuple[str, str, int, int, int]],
    horizon: int,
    levels: list[float],
    provenance: Provenance,
    generated_at_ms: int,
    seed: int,
) -> None:
    values = np.random.default_rng(seed).normal(0, 1e3, (len(rows), horizon, len(levels))).astype(np.float32)
    echo_type = {"type": "record", "name": "Echo", "fields": without_logical_types(schema)["fields"][: len(ECHO)]}
    encoder = ForecastEncoder(schema=schema, prefix=b"<p>", echo_fields=ECHO, quantiles=levels, horizon=horizon)
    messages = encoder.encode(
        echoes=[encoded(echo_type, dict(zip(ECHO, row[:3], strict=True))) for row in rows],
        partitions=np.array([row[3] for row in rows], dtype=np.int32),
        offsets=np.array([row[4] for row in rows], dtype=np.int64),
        values=values,
        provenance=provenance,
        generated_at_ms=generated_at_ms,
    )
    assert len(messages) == len(rows)
    for row, numbers, message in zip(rows, values, messages, strict=True):
        full = dict(zip(ECHO, row[:3], strict=True)) | {
            "quantile_levels": levels,
            "quantiles": numbers.T.tolist(),
            "source_partition": row[3],
            "source_offset": row[4],
            "generated_at": generated_at_ms,
            "model": provenance.model,
            "model_version": provenance.model_version,
            "engine_digest": provenance.engine_digest,
            "precision": provenance.precision,
            "fallback_reason": provenance.fallback_reason,
        }
        names = [field["name"] for field in schema["fields"]]
        expected = {name: full[name] for name in names}
        plain_schema = without_logical_types(schema)
        assert message == b"<p>" + encoded(plain_schema, expected)
        stream = BytesIO(message[3:])
        assert fastavro.schemaless_reader(stream, fastavro.parse_schema(plain_schema)) == expected
        assert stream.read() == b""


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=60),
    timestamp_ms=st.integers(-1, 2**50) | st.integers(LATEST_MS - 1, LATEST_MS + 1),
    reason=st.sampled_from(Reason),
    detail=TEXT,
    limit=st.integers(0, 80),
)
def test_dead_letters_keep_the_record(
    key: bytes | None, value: bytes | None, timestamp_ms: int, reason: Reason, detail: str, limit: int
) -> None:
    schema = load_schema(None, "dead_letter")
    record = Record(topic="t", partition=3, offset=2**40, timestamp_ms=timestamp_ms, key=key, value=value)
    encoder = DeadLetterEncoder(schema, b"<p>", limit)
    message = encoder.encode(Rejection(record=record, reason=reason, detail=detail), rejected_at_ms=1_790_000_000_000)
    assert message.startswith(b"<p>")
    letter = fastavro.schemaless_reader(BytesIO(message[3:]), fastavro.parse_schema(without_logical_types(schema)))
    assert letter == {
        "topic": "t",
        "partition": 3,
        "offset": 2**40,
        "timestamp": None if timestamp_ms < 0 or timestamp_ms > LATEST_MS else timestamp_ms,
        "key": key,
        "value": None if value is None else value[:limit],
        "value_bytes": -1 if value is None else len(value),
        "reason": reason.value,
        "detail": detail,
        "rejected_at": 1_790_000_000_000,
    }
