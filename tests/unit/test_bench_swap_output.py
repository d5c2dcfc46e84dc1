from __future__ import annotations

import io

import fastavro
import pytest

from bench.swap_output import (
    Found,
    Provenance,
    problems_of_outcomes,
    problems_of_runs,
    provenance_by,
    provenance_of,
    silent,
    versions_in_order,
)
from demo.single_object import SingleObject
from schemas.load import load_schema
from worker.framing import SingleObjectFraming

SCHEMA = load_schema(None, "sku_forecast")


def message(*, offset: int, version: str, fallback: str | None, quantiles: list[list[float]]) -> bytes:
    out = io.BytesIO()
    content = {
        "sku_id": "milk" * 40,
        "store_id": "store-1",
        "as_of": 20_000,
        "quantile_levels": [0.1, 0.5],
        "quantiles": quantiles,
        "source_partition": 3,
        "source_offset": offset,
        "generated_at": 1_700_000_000_000,
        "model": "m",
        "model_version": version,
        "engine_digest": "ab" * 32,
        "precision": "fp32",
        "fallback_reason": fallback,
    }
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(SCHEMA)), content)
    return SingleObjectFraming([SCHEMA]).prefix_for(SCHEMA) + out.getvalue()


@pytest.mark.parametrize("offset", [0, 63, 64, 8_192, 123_456_789])
@pytest.mark.parametrize("fallback", [None, "guard:drift"])
def test_the_quick_reading_says_what_fastavro_says(offset: int, fallback: str | None) -> None:
    value = message(offset=offset, version="v17", fallback=fallback, quantiles=[[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    assert provenance_of(value) == Provenance(3, offset, "v17", "ab" * 32, fallback, finite=True)
    assert provenance_of(value) == provenance_by(SingleObject(SCHEMA).decode, value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_seen_wherever_it_stands(number: float) -> None:
    for quantiles in ([[number, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, number]]):
        assert not provenance_of(message(offset=1, version="v", fallback=None, quantiles=quantiles)).finite


def test_versions_are_told_in_the_order_of_the_inputs_not_of_the_topic() -> None:
    assert versions_in_order([2, 0, 1, 3], ["b", "a", "a", "b"]) == ["a", "b"]
    assert versions_in_order([], []) == []


def test_every_input_has_one_outcome_or_it_is_said_which_not() -> None:
    assert problems_of_outcomes({0: [2, 0, 1], 1: []}, {0: 3, 1: 0}) == []
    assert problems_of_outcomes({0: [0, 2]}, {0: 3}) == ["partition 0: 1 of 3 lost"]
    assert problems_of_outcomes({0: [0, 1, 1]}, {0: 2}) == ["partition 0: 1 doubled"]
    assert problems_of_outcomes({0: [0, 1, 2]}, {0: 2}) == ["partition 0: 1 that weren't committed"]
    assert problems_of_outcomes({}, {0: 2}) == ["partition 0: 2 of 2 lost"]
    assert problems_of_outcomes({5: [0]}, {}) == ["partitions [5] weren't read"]


def test_a_version_that_comes_back_or_never_was_to_serve_is_a_problem_and_a_silent_one_is_counted() -> None:
    served = ["v1", "v2", "v3"]
    assert problems_of_runs({0: ["v1", "v2", "v3"], 1: ["v1", "v3"]}, served) == []
    assert silent({0: ["v1", "v2", "v3"], 1: ["v1", "v3"]}, served) == 1
    assert problems_of_runs({0: ["v1", "v2", "v1"]}, served) == ["partition 0: v1 comes at place 2, after ['v2']"]
    assert problems_of_runs({0: ["v2", "v1"]}, served) == ["partition 0: v1 comes at place 1, after ['v2']"]
    assert problems_of_runs({4: ["broken"]}, served) == ["partition 4: broken comes at place 0, after []"]


def test_what_was_found_is_kept_by_partition() -> None:
    found = Found()
    for row in (
        Provenance(0, 1, "v2", "d2", None, finite=True),
        Provenance(0, 0, "v1", "d1", "guard:drift", finite=True),
        Provenance(1, 0, "v2", "d3", None, finite=False),
    ):
        found.add(row)
    assert (found.rows, found.not_finite, dict(found.fallbacks)) == (3, 1, {"guard:drift": 1})
    assert found.runs() == {0: ["v1", "v2"], 1: ["v2"]}
    assert set(found.versions) == {("v1", "d1"), ("v2", "d2"), ("v2", "d3")}


def test_what_several_readers_found_is_as_if_one_had_read_it_all() -> None:
    rows = [
        Provenance(0, 1, "v2", "d2", None, finite=True),
        Provenance(0, 0, "v1", "d1", "guard:drift", finite=True),
        Provenance(1, 0, "v2", "d3", None, finite=False),
        Provenance(1, 1, "v1", "d1", "guard:drift", finite=True),
    ]
    whole, first, second = Found(), Found(), Found()
    for number, row in enumerate(rows):
        whole.add(row)
        (first, second)[number % 2].add(row)
    second.take(first)
    assert (second.rows, second.not_finite, second.fallbacks) == (whole.rows, whole.not_finite, whole.fallbacks)
    assert set(second.versions) == set(whole.versions)
    assert second.runs() == whole.runs() == {0: ["v1", "v2"], 1: ["v2", "v1"]}
