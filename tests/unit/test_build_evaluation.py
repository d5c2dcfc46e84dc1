from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine_build.errors import EvaluationError
from engine_build.evaluation import accuracy, compare, compare_to_fp32, load_evaluation, onnx_forecasts
from schemas.engine_card import Accuracy
from tests.helpers.onnx_graphs import SCHEMA, network, rows, saved


def figures(wape: float = 0.2, bias: float = 0.01, pinball: float = 1.0) -> Accuracy:
    return Accuracy(wape=wape, wape_total=0.1, bias=bias, pinball=pinball, rows=10)


def test_accuracy_follows_its_formulas() -> None:
    actual = np.array([[1.0, 3.0], [2.0, 4.0]], np.float32)
    forecast = np.stack([actual * 0.5, actual + 1.0, actual * 2.0], axis=2).astype(np.float32)
    found = accuracy(forecast, actual)
    assert (found.wape, found.bias, found.wape_total, found.rows) == pytest.approx((0.4, 0.4, 0.4, 2))
    assert found.pinball == pytest.approx((0.1 * 0.5 * 2.5 + 0.5 + 0.1 * 2.5) / 3)


@pytest.mark.parametrize(
    ("candidate", "passed"),
    [
        (figures(), True),
        (figures(wape=0.2039), True),
        (figures(wape=0.2041), False),
        (figures(pinball=1.021), False),
        (figures(bias=-0.029), True),
        (figures(bias=-0.031), False),
        (figures(wape=0.1, bias=0.0, pinball=0.5), True),
    ],
)
def test_two_percent_worse_is_out(candidate: Accuracy, passed: bool) -> None:  # noqa: FBT001 - a parameter
    verdict = compare(candidate, figures())
    assert verdict.passed == passed
    assert str(verdict).startswith("passed" if passed else "out")


def test_without_an_evaluation_set_fp32_is_the_measure_and_it_is_said() -> None:
    reference = np.ones((5, 2, 3), np.float32)
    assert compare_to_fp32(reference * np.float32(1.01), reference).passed
    verdict = compare_to_fp32(reference * np.float32(1.03), reference)
    assert len(verdict.reasons) == 3
    assert "no evaluation set given" in verdict.basis
    assert not compare_to_fp32(np.full_like(reference, np.nan), reference).passed


def test_unusable_forecasts_are_refused() -> None:
    actual = np.ones((5, 2), np.float32)
    with pytest.raises(EvaluationError, match=r"shape: got \(5, 3\), expected \(5, 2, 3\)"):
        accuracy(np.ones((5, 3), np.float32), actual)
    with pytest.raises(EvaluationError, match="aren't finite"):
        accuracy(np.full((5, 2, 3), np.nan, np.float32), actual)
    with pytest.raises(EvaluationError, match="expected some sales"):
        accuracy(np.ones((5, 2, 3), np.float32), actual * 0)


def test_an_evaluation_set_is_events_and_what_was_sold(tmp_path: Path) -> None:
    columns = {name: list(values) for name, values in rows(20).items()}
    pq.write_table(pa.table({**columns, "actual": [[1.0, 2.0]] * 20}), tmp_path / "set.parquet")
    found = load_evaluation(tmp_path / "set.parquet", {"sales": 8, "as_of": None}, 2, SCHEMA)
    forecast = onnx_forecasts(saved(network(), tmp_path), found.columns, batch_rows=7)
    assert (len(found), forecast.shape) == (20, (20, 2, 3))
    np.testing.assert_allclose(forecast, onnx_forecasts(tmp_path / "model.onnx", found.columns), rtol=1e-4)
    pq.write_table(pa.table({**columns, "actual": [[1.0, float("nan")]] * 20}), tmp_path / "set.parquet")
    with pytest.raises(EvaluationError, match="column actual: 20 rows aren't finite"):
        load_evaluation(tmp_path / "set.parquet", {"sales": 8, "as_of": None}, 2, SCHEMA)
