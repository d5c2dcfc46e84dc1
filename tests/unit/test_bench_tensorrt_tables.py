from __future__ import annotations

from typing import Any

import pytest

from bench.report import freshretailnet_section, tensorrt_section
from bench.tables import topic_lines
from bench.tensorrt_tables import comparison_lines, tensorrt_lines

AIMS = {"engine / bare": 0.9, "graph / plain": 1.3, "int8 / fp32 memory": 0.4}


def one_pass(graph: str, ms: float, memory_mib: int) -> dict[str, Any]:
    return {
        "graph": graph,
        "ms_by_rows": {"1": ms, "4096": 10 * ms},
        "device_memory_bytes": memory_mib << 20,
        "difference": 0.0123,
        "difference_of_one_row": 0.0,
    }


def with_fp16(**more: Any) -> dict[str, Any]:
    found = result()
    found["passes"][1] |= more
    return found


def result(**more: Any) -> dict[str, Any]:
    passes = [one_pass("m.fp32", 0.4, 2000), one_pass("m.fp16", 0.2, 1000), one_pass("m.int8", 0.3, 500)]
    gpu = {"name": "G", "compute_capability": "9.0"}
    return {"gpu": gpu, "runtime": "TensorRT 8.6.1", "aims": AIMS, "passes": passes, **more}


def test_every_plan_has_a_line_and_the_memory_is_compared() -> None:
    lines = tensorrt_lines(result())
    assert [part.strip() for part in lines[0].split("|")[1:5]] == ["one pass, ms", "1 rows", "4,096 rows", "device MiB"]
    assert [part.strip() for part in lines[3].split("|")[1:6]] == ["m.fp16", "0.200", "2.000", "1,000", "1.23%"]
    assert [part.strip() for part in lines[-1].split("|")[1:3]] == ["m", "0.25 (aim <= 0.4: met)"]


@pytest.mark.parametrize(
    ("copies", "limit", "share"), [(5000.0, "plan", "0.95"), (1100.0, "plan", "0.95"), (960.0, "copies", "0.99")]
)
def test_the_engine_is_held_against_what_binds(copies: float, limit: str, share: str) -> None:
    lines = tensorrt_lines(with_fp16(rates={"engine": 950.0, "bare": 1000.0, "copies": copies}))
    (found,) = [each for each in lines if "of the " in each]
    assert found.startswith("| m.fp16")
    assert f"{share} (aim >= 0.9: met), of the {limit}" in found


def test_graphs_are_held_against_plain_batches() -> None:
    single = {"plain": {"1": 0.26, "64": 0.30}, "graph": {"1": 0.13, "64": 0.25}}
    (found,) = [each for each in tensorrt_lines(with_fp16(single_ms=single)) if "aim >= 1.3" in each]
    assert [part.strip() for part in found.split("|")[1:5]] == [
        *("m.fp16", "0.130 (2.00)", "0.250 (1.20)", "1.20 (aim >= 1.3: missed)")
    ]


def test_what_a_change_of_size_costs_is_shown() -> None:
    changes = {"same": 1.7, "first": 20.0, "again": 5.0}
    line = tensorrt_lines(with_fp16(size_change_ms=changes))[-5]
    assert [part.strip() for part in line.split("|")[1:5]] == ["m.fp16", "1.700", "20.000", "5.000"]


def test_a_result_from_before_one_row_was_looked_at_has_none() -> None:
    found = result()
    for each in found["passes"]:
        del each["difference_of_one_row"]
    assert [part.strip() for part in tensorrt_lines(found)[2].split("|")[1:-1]][-2:] == ["1.23%", ""]


def test_pytorch_is_put_beside_tensorrt() -> None:
    pytorch = {
        "times": [
            {"data": "a", "model": "b", "kind": "eager fp16 autocast", "ms_by_rows": {"1": 0.6, "4096": 4.0}},
            {"data": "a", "model": "b", "kind": "eager fp32", "ms_by_rows": {"1": 0.6, "4096": 4.0}},
            {"data": "a", "model": "c", "kind": "eager fp16 autocast", "ms_by_rows": {"1": 0.6, "4096": 4.0}},
        ]
    }
    lines = comparison_lines({"times": [one_pass("a-b.fp16", 0.2, 1)]}, pytorch, "a-b")
    assert len(lines) == 3
    assert [part.strip() for part in lines[2].split("|")[1:4]] == ["eager fp16 autocast", "3.00", "2.00"]


def test_seconds_from_topic_to_topic_are_split_into_steps() -> None:
    measured = {
        "events": 50_000,
        "seconds": {"median": 0.5, "min": 0.4, "max": 0.6},
        "stage_s": {"poll": 0.1, "engine": 0.02},
    }
    text = "\n".join(topic_lines(measured))
    assert "50,000 events, topic to topic" in text
    assert "0.400 to 0.600" in text
    assert "engine, from submit to fetch, beside the others" in text


def test_sections_say_where_it_was_measured() -> None:
    assert "G (compute capability 9.0), TensorRT 8.6.1" in "\n".join(tensorrt_section(result()))
    machine = {
        "cpu": "C",
        "cores": 2,
        "memory_gib": 4,
        "python": "3",
        "librdkafka": "2",
        "libraries": {},
        "broker": {"kafka": "4", "heap": "1g"},
    }
    measured = {
        "machine": machine,
        "model": "m 1",
        "plans": [],
        "events": 10,
        "event_bytes": 700.0,
        "commit_interval_s": 0.5,
        "seconds": {"median": 0.5, "min": 0.4, "max": 0.6},
        "stage_s": {},
    }
    assert "m 1 by ONNX Runtime" in "\n".join(freshretailnet_section(measured))
