"""The order of the measurements, and that one which fails costs its own result only."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import tensorrt
from schemas.plan_choice import Gpu, PlanRuntime


def bench() -> Any:
    runtime = PlanRuntime(name="tensorrt", version="8.6.1")
    return SimpleNamespace(gpu=Gpu(name="fake", compute_capability="9.0"), library=SimpleNamespace(runtime=runtime))


def test_the_primary_comes_first_and_fp16_before_the_others() -> None:
    names = [
        "bakery-lstm.fp32",
        "bakery-lstm.fp16",
        "freshretailnet-transformer.int8",
        "freshretailnet-transformer.fp16",
    ]
    graphs = sorted((Path(f"{name}.onnx") for name in names), key=tensorrt._turn)
    assert [graph.stem for graph in graphs] == [names[3], names[2], names[1], names[0]]


def test_a_plan_that_fails_costs_its_own_result_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(_runtime: str, graph: Path, workspace_bytes: int | None) -> Any:
        assert workspace_bytes == 1 << 30
        if graph.stem == "b.int8":
            raise RuntimeError("no such kernel")
        return SimpleNamespace(name=graph.stem)

    def measure(_bench: Any, plan: Any, _out: Path) -> dict[str, Any]:
        times = {"1": 1.0, "64": 2.0}
        differs = {"difference": 0.0, "difference_of_one_row": 0.0}
        return {"graph": plan.name, "ms_by_rows": times, "device_memory_bytes": 1 << 20, **differs}

    monkeypatch.setattr(tensorrt, "_build", build)
    monkeypatch.setattr(tensorrt, "_measure", measure)
    graphs = [Path(f"{name}.onnx") for name in ("a.fp16", "b.int8", "c.fp32")]
    assert tensorrt._measured(bench(), graphs, tmp_path, 1, 1 << 30) == 1
    result = json.loads((tmp_path / "tensorrt.json").read_text(encoding="utf-8"))
    assert [each["graph"] for each in result["passes"]] == ["a.fp16", "c.fp32"]
    assert result["failures"] == {"b.int8": "RuntimeError: no such kernel"}
    assert [each["graph"] for each in json.loads((tmp_path / "timing-tensorrt.json").read_text())["times"]] == [
        "a.fp16",
        "c.fp32",
    ]
    assert "FAILED b.int8: RuntimeError: no such kernel" in capsys.readouterr().out


def test_plans_that_fail_in_other_processes_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphs = [tmp_path / "a.fp16.onnx", tmp_path / "a.int8.onnx"]  # not there, whether or not TensorRT is
    assert tensorrt._measured(bench(), graphs, tmp_path, 2) == 2
    result = json.loads((tmp_path / "tensorrt.json").read_text(encoding="utf-8"))
    assert result["builders"] == 2
    assert list(result["failures"]) == ["a.fp16", "a.int8"]
    assert "a.int8.onnx: failed" in capsys.readouterr().out
