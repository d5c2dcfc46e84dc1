from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.training.retraining import compare, differences

METRICS = {"wape_sku_day": 0.35, "pinball": 0.2, "bias": 0.001, "coverage_p10_p90": 0.78}


def test_errors_are_compared_as_shares_bias_and_coverage_as_they_are() -> None:
    trained = {"wape_sku_day": 0.357, "pinball": 0.2, "bias": -0.001, "coverage_p10_p90": 0.77}
    found = differences(trained, METRICS)
    assert found == pytest.approx({"wape_sku_day": 0.02, "pinball": 0.0, "bias": -0.002, "coverage_p10_p90": -0.01})


def report(path: Path, **changes: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"data": "bakery", "model": "lstm", "seconds": 90.0, "device": "GPU", "epochs": 3}
    path.write_text(json.dumps({**content, "test": {**METRICS, **changes}}), encoding="utf-8")
    return path


@pytest.mark.parametrize(("pinball", "same"), [(0.2, True), (0.2039, True), (0.2041, False), (0.195, False)])
def test_a_model_is_as_good_within_two_per_cent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pinball: float, *, same: bool
) -> None:
    report(tmp_path / "models" / "bakery-lstm" / "report.json")
    assert compare(report(tmp_path / "new.json", pinball=pinball), tmp_path / "models") is same
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == ("all within 2%" if same else "beyond 2%: pinball")


def test_a_metric_that_is_no_number_is_not_within_anything(tmp_path: Path) -> None:
    report(tmp_path / "models" / "bakery-lstm" / "report.json")
    assert not compare(report(tmp_path / "new.json", pinball=float("nan")), tmp_path / "models")
