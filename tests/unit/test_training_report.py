from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra `train`")

from demo.training import report as pages
from demo.training.metrics import Outcome, report, summary


def outcome(error: float) -> Outcome:
    actual = np.random.default_rng(1).gamma(2.0, 5.0, size=(1, 6, 14)).astype(np.float32)
    middle = actual * (1 + error)
    flags = np.zeros(actual.shape, dtype=bool)
    return Outcome(
        forecast=np.stack([middle * 0.5, middle, middle * 1.5], axis=-1).astype(np.float32),
        actual=actual,
        stocked=~flags,
        promo=flags,
        holiday=flags,
        stores=np.arange(6),
        volume=np.ones(6, np.float32),
    )


def result(*, model: float, baseline: float) -> dict[str, Any]:
    line = summary(outcome(model))
    return {
        "data": "bakery",
        "series": 6,
        "test_first_day": "2020-01-01",
        "test_last_day": "2020-01-14",
        "origins": 1,
        "primary": "lstm",
        "models": ["lstm"],
        "reports": {"lstm": report(outcome(model)), "AutoETS": report(outcome(baseline))},
        "precisions": {
            "lstm": {"fp32": line, "fp16": line, "int8": line | {"wape_sku_day": line["wape_sku_day"] * 1.5}}
        },
        "training": {"lstm": None},
    }


def written(folder: Path, content: dict[str, Any]) -> str:
    (folder / "accuracy-bakery.json").write_text(json.dumps(content))
    pages.write(folder, folder / "docs")
    return (folder / "docs" / "accuracy.md").read_text()


def test_what_is_reached_and_what_is_not_is_said(tmp_path: Path) -> None:
    text = written(tmp_path, result(model=0.05, baseline=0.2))
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| Bakery chain")}
    assert rows["WAPE per SKU-day below every baseline"].endswith("| yes |")
    assert rows["INT8 within 2% of FP32's WAPE"].endswith("+50.00 % | **no** |")
    assert rows["bias within 3 %"].endswith("5.0 % | **no** |")
    assert "**is reached** per SKU-day (95.0 %)" in text
    assert sorted(path.name for path in (tmp_path / "docs" / "plots").iterdir()) == [
        "accuracy-bakery-days.svg",
        "accuracy-bakery-levels.svg",
    ]


def test_a_baseline_that_is_better_is_named(tmp_path: Path) -> None:
    text = written(tmp_path, result(model=0.2, baseline=0.1))
    assert "best baseline AutoETS 0.1000 | **no** |" in text


def test_the_same_numbers_give_the_same_files(tmp_path: Path) -> None:
    written(tmp_path, result(model=0.1, baseline=0.2))
    first = {path: path.read_bytes() for path in (tmp_path / "docs").rglob("*.*")}
    written(tmp_path, result(model=0.1, baseline=0.2))
    assert first == {path: path.read_bytes() for path in first}


def test_times_are_listed_where_they_were_measured(tmp_path: Path) -> None:
    times = {str(rows): 0.1 for rows in (1, 64, 512, 2048, 8192)}
    content = {"times": [{"data": "bakery", "model": "lstm", "kind": "eager fp32", "ms_by_rows": times}]}
    (tmp_path / "timing-pytorch.json").write_text(json.dumps(content))
    (tmp_path / "timing-tensorrt.json").write_text(
        json.dumps({"tensorrt": "8.6.1", "times": [{"graph": "bakery-lstm.int8", "ms_by_rows": times}]})
    )
    text = written(tmp_path, result(model=0.1, baseline=0.2))
    assert "| bakery-lstm | eager fp32 | 0.100 |" in text
    assert "| bakery-lstm | TensorRT 8.6.1 INT8 | 0.100 |" in text
