"""Invariant: any bytes give one row or exactly one rejection; a row is what fastavro reads, to the last byte; no other row is touched.

`FUZZ_POLLS` sets how many polls of mutated messages are decoded (default 60).
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from tests.helpers.avro import Case, decode, one_by_one, oracle, records_of

FLOATS = {"type": "array", "items": "float"}
POLLS = int(os.environ.get("FUZZ_POLLS", "60"))
FLAT = [
    ("sku", "string"),
    ("store", "string"),
    ("as_of", "int"),
    ("x", FLOATS),
    ("y", "double"),
    ("n", "long"),
    ("ok", "boolean"),
]
RICH = [*FLAT, ("note", ["null", "string"]), ("tags", {"type": "map", "values": {"type": "array", "items": "int"}})]
INTERESTING = (0x00, 0x01, 0x02, 0x7F, 0x80, 0x81, 0xFE, 0xFF, ord("|"))


def case_of(fields: list[tuple[str, Any]]) -> Case:
    schema = {"type": "record", "name": "Event", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    return Case(
        writer=schema,
        reader=schema,
        inputs={"x": 5, "y": None, "n": None},
        key_fields=("sku", "store"),
        echo_fields=("sku", "as_of", "ok"),
    )


def message(case: Case, rng: random.Random) -> bytes:
    return case.message(
        {
            "sku": "é" * rng.randrange(1, 40),
            "store": f"s{rng.randrange(99)}",
            "as_of": rng.randrange(-(2**31), 2**31),
            "x": [rng.uniform(-9, 9) for _ in range(5)],
            "y": rng.uniform(-9, 9),
            "n": rng.randrange(-(2**63), 2**63),
            "ok": rng.random() < 0.5,
            "note": rng.choice([None, "note"]),
            "tags": {"a": [1, 2], "b": []},
        }
    )


def mutated(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 8])):
        at = rng.randrange(10, len(data)) if len(data) > 10 else 0
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.choice(INTERESTING)])
        elif kind == 1:
            data[at:at] = bytes(rng.choice(INTERESTING) for _ in range(rng.randrange(1, 12)))
        elif kind == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            data[at : at + 1] = bytes([rng.randrange(256)])
        else:
            data = data[:at]
    return bytes(data)


@pytest.mark.parametrize("fields", [FLAT, RICH], ids=["fast", "slow"])
def test_mutated_messages(fields: list[tuple[str, Any]]) -> None:
    case = case_of(fields)
    assert case.is_fast() == (fields is FLAT)
    rng = random.Random(20260607)
    decoder, reference = case.decoder(), one_by_one(case)
    rows = rejections = 0
    for _ in range(POLLS):
        values = [mutated(message(case, rng), rng) for _ in range(rng.randrange(1, 60))]
        result = decode(decoder, case, records_of(values))
        assert result == decode(reference, case, records_of(values))
        accepted = oracle(case, [values[i] for i in result.sources])
        assert (result.keys, result.inputs, result.echoes) == (accepted.keys, accepted.inputs, accepted.echoes)
        rows += len(result.sources)
        rejections += len(result.rejections)
    assert rows > POLLS
    assert rejections > POLLS


def test_random_bytes() -> None:
    case = case_of(FLAT)
    rng = random.Random(7)
    prefix = case.prefix
    for _ in range(POLLS):
        values = [prefix[: rng.choice([0, 2, 10, 10])] + rng.randbytes(rng.randrange(120)) for _ in range(40)]
        result = decode(case.decoder(), case, records_of(values))
        assert len(result.sources) + len(result.rejections) == 40
