"""Microseconds per message of decoding and encoding, beside fastavro and beside a plain copy of the same bytes.

    python -m bench.decode [--records 4096] [--rounds 40] [--out bench/results/decode.json]

All ways run in turns within one process, on one core, and the fastest round of each counts: what else the machine does
only ever adds time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from numpy.typing import NDArray

from schemas.load import load_schema
from worker.decode import Decoder
from worker.encode import ForecastEncoder, Provenance, echo_fields_of
from worker.framing import SingleObjectFraming
from worker.records import Record, Records

KEY_FIELDS = ("sku_id", "store_id")
QUANTILES = (0.1, 0.5, 0.9)
HORIZON = 14
HISTORY = 30
FIRST_OFFSET = 1_000_000
PREFIX_BYTES = SingleObjectFraming.prefix_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The fastest round of one way."""

    name: str
    us_per_message: float


def inputs_of(schema: Mapping[str, Any]) -> dict[str, int | None]:
    """Every array field of the packaged schema at its default's width (sales has no default: its history)."""
    arrays = [
        field for field in schema["fields"] if isinstance(field["type"], dict) and field["type"]["type"] == "array"
    ]
    return {field["name"]: len(field.get("default", range(HISTORY))) for field in arrays}


def messages_of(schema: Mapping[str, Any], widths: Mapping[str, int | None], records: int) -> list[bytes]:
    """Events as producers write them, framed."""
    rng = np.random.default_rng(1)
    parsed = fastavro.parse_schema(dict(schema))
    prefix = SingleObjectFraming([schema]).prefix_for(schema)
    messages = []
    for i in range(records):
        event: dict[str, Any] = {"sku_id": f"sku-{i:06d}", "store_id": f"store-{i % 35}", "as_of": 20_000 + i % 100}
        event |= {name: rng.random(width).astype(np.float32).tolist() for name, width in widths.items()}
        out = BytesIO(prefix)
        out.seek(0, os.SEEK_END)
        fastavro.schemaless_writer(out, parsed, event)
        messages.append(out.getvalue())
    return messages


def decode_ways(schema: Mapping[str, Any], messages: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """The worker's decoder, fastavro into the same columns, and copies of the bytes."""
    widths = inputs_of(schema)
    framing = SingleObjectFraming([schema])
    decoder = Decoder(
        reader_schema=schema,
        inputs=widths,
        key_fields=KEY_FIELDS,
        echo_fields=(*KEY_FIELDS, "as_of"),
        framing=framing,
        max_value_bytes=1 << 20,
    )
    records = Records.of(
        [Record(topic="t", partition=0, offset=i, timestamp_ms=i, key=None, value=m) for i, m in enumerate(messages)]
    )
    columns = {name: np.empty((len(messages), width or 1), dtype=np.float32) for name, width in widths.items()}
    parsed = fastavro.parse_schema(dict(schema))

    def with_fastavro() -> list[str]:
        keys = []
        for row, message in enumerate(messages):
            stream = BytesIO(message)
            stream.seek(PREFIX_BYTES)
            event: Any = fastavro.schemaless_reader(stream, parsed, None)
            for name, column in columns.items():
                column[row] = event[name]
            keys.append(f"{event['sku_id']}|{event['store_id']}")
        return keys

    joined = np.frombuffer(b"".join(messages), dtype=np.uint8)
    decoded = decoder.decode(records, columns, 0)
    if decoded.rows != len(messages) or decoded.keys != [key.encode() for key in with_fastavro()]:
        raise SystemExit("the decoders disagree: no timing makes sense")
    return {
        "decode: worker": lambda: decoder.decode(records, columns, 0),
        "decode: fastavro": with_fastavro,
        "join the messages": lambda: b"".join(messages),
        "copy the joined bytes": joined.copy,
    }


def encode_ways(features: Mapping[str, Any], rows: int) -> dict[str, Callable[[], object]]:
    """The worker's encoder, fastavro from the same arrays, and a copy of the bytes."""
    schema = load_schema(None, "sku_forecast")
    parsed = fastavro.parse_schema(schema)
    echo = echo_fields_of(features, schema)
    prefix = SingleObjectFraming([schema]).prefix_for(schema)
    encoder = ForecastEncoder(schema=schema, prefix=prefix, echo_fields=echo, quantiles=QUANTILES, horizon=HORIZON)
    provenance = Provenance(
        model="model", model_version="1.0.0", engine_digest="0" * 64, precision="fp32", fallback_reason=None
    )
    values: NDArray[np.float32] = np.random.default_rng(2).random((rows, HORIZON, len(QUANTILES)), dtype=np.float32)
    events = [{"sku_id": f"sku-{i:06d}", "store_id": f"store-{i % 35}", "as_of": 20_000} for i in range(rows)]
    echo_type = fastavro.parse_schema({**schema, "name": "Echo", "fields": schema["fields"][: len(echo)]})  # type: ignore[index]
    generated_at_ms = 1_790_000_000_000
    constant = {"quantile_levels": list(QUANTILES), "generated_at": generated_at_ms, **asdict(provenance)}
    batch: dict[str, Any] = {
        "echoes": [written(echo_type, event, b"") for event in events],
        "partitions": np.zeros(rows, dtype=np.int32),
        "offsets": np.arange(rows, dtype=np.int64) + FIRST_OFFSET,
        "values": values,
        "provenance": provenance,
        "generated_at_ms": generated_at_ms,
    }

    def with_worker() -> list[bytes]:
        return encoder.encode(**batch)

    def with_fastavro() -> list[bytes]:
        messages = []
        for i, (event, quantiles) in enumerate(zip(events, values.transpose(0, 2, 1).tolist(), strict=True)):
            own = {"quantiles": quantiles, "source_partition": 0, "source_offset": FIRST_OFFSET + i}
            messages.append(written(parsed, event | constant | own, prefix))
        return messages

    if with_worker() != with_fastavro():
        raise SystemExit("the encoders disagree: no timing makes sense")
    joined = np.frombuffer(b"".join(with_worker()), dtype=np.uint8)
    return {
        "encode: worker": with_worker,
        "encode: fastavro": with_fastavro,
        "copy the encoded bytes": joined.copy,
    }


def written(parsed: object, value: Mapping[str, Any], prefix: bytes) -> bytes:
    """`value` by fastavro, behind `prefix`."""
    out = BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, parsed, value)  # type: ignore[arg-type]
    return out.getvalue()


def timings(ways: Mapping[str, Callable[[], object]], messages: int, rounds: int) -> list[Timing]:
    """The fastest of `rounds` rounds; every round runs all ways."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began_ns = time.perf_counter_ns()
            way()
            best[name] = min(best[name], (time.perf_counter_ns() - began_ns) / 1e3 / messages)
    return [Timing(name=name, us_per_message=round(us, 4)) for name, us in best.items()]


def main() -> None:
    """Measure, print a table, and write the figures where asked."""
    parser = argparse.ArgumentParser(description="Decode and encode: the worker, fastavro, and plain copies.")
    parser.add_argument("--records", type=int, default=4096, help="messages per call")
    parser.add_argument("--rounds", type=int, default=40, help="rounds; the fastest counts")
    parser.add_argument("--out", type=Path, default=Path("bench/results/decode.json"), help="JSON file to write")
    arguments = parser.parse_args()
    schema = load_schema(None, "sku_features")
    messages = messages_of(schema, inputs_of(schema), arguments.records)
    ways = decode_ways(schema, messages) | encode_ways(schema, arguments.records)
    found = timings(ways, arguments.records, arguments.rounds)
    by_name = {timing.name: timing.us_per_message for timing in found}
    print(f"{arguments.records} messages per call, {len(messages[0])} bytes each, best of {arguments.rounds} rounds")
    print(f"{'':26} {'µs/message':>10} {'messages/s':>12}")
    for timing in found:
        print(f"{timing.name:26} {timing.us_per_message:10.3f} {1e6 / timing.us_per_message:12,.0f}")
    ratios = {
        f"{what}: fastavro / worker": round(by_name[f"{what}: fastavro"] / by_name[f"{what}: worker"], 1)
        for what in ("decode", "encode")
    }
    for name, ratio in ratios.items():
        print(f"{name:26} {ratio:10.1f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "records": arguments.records,
        "bytes_per_event": len(messages[0]),
        "rounds": arguments.rounds,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fastavro": fastavro.__version__,
        "us_per_message": by_name,
        "ratios": ratios,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
