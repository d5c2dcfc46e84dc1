"""The order of the measurements, and that one which fails costs its own result only."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import tensorrt
from schemas.plan_choice import Gpu, PlanRuntime


def test_the_primary_comes_first_and_fp16_before_the_others() -> None:
    names = ["bakery-lstm.fp32", "bakery-lstm.fp16", "freshretailnet-lstm.int8", "freshretailnet-lstm.fp16"]
    graphs = sorted((Path(f"{name}.onnx") for name in names), key=tensorrt._turn)
    assert [graph.stem for graph in graphs] == [names[3], names[2], names[1], names[0]]


def test_a_plan_that_fails_costs_its_own_result_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_bench: Any, graph: Path, _out: Path, _result: dict[str, object], lines: list[Any]) -> None:
        if graph.stem == "b.int8":
            raise RuntimeError("no such kernel")
        times = {"1": 1.0, "64": 2.0}
        lines.append({"graph": graph.stem, "ms_by_rows": times, "device_memory_bytes": 1 << 20, "difference": 0.0})

    monkeypatch.setattr(tensorrt, "_measure", measure)
    runtime = PlanRuntime(name="tensorrt", version="8.6.1")
    bench: Any = SimpleNamespace(
        gpu=Gpu(name="fake", compute_capability="9.0"), library=SimpleNamespace(runtime=runtime)
    )
    graphs = [Path(f"{name}.onnx") for name in ("a.fp16", "b.int8", "c.fp32")]
    assert tensorrt._measured(bench, graphs, tmp_path) == 1
    result = json.loads((tmp_path / "tensorrt.json").read_text(encoding="utf-8"))
    assert [each["graph"] for each in result["passes"]] == ["a.fp16", "c.fp32"]
    assert result["failures"] == {"b.int8": "RuntimeError: no such kernel"}
    assert [each["graph"] for each in json.loads((tmp_path / "timing-tensorrt.json").read_text())["times"]] == [
        "a.fp16",
        "c.fp32",
    ]
    assert "FAILED b.int8: RuntimeError: no such kernel" in capsys.readouterr().out
