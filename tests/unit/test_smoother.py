from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from demo import bakery, smoother_fit
from demo.bakery import DataUnavailableError
from demo.evaluation import errors_of_all
from demo.smoother import Constants, forecast, median_and_spread, public_share
from demo.smoother_graph import OPSET, graph_of
from schemas.engine_card import load_card
from tests.helpers.series import made_series

MODEL = Path(__file__).parents[2] / "models" / "bakery-smoother"
NONE = {"holiday": np.zeros((1, 30), np.float32), "holiday_next": np.zeros((1, 14), np.float32)}
WEEK = np.array([10, 20, 30, 40, 50, 60, 0], dtype=np.float32)


def history(week: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.concatenate([week[-2:], np.tile(week, 4)])[None]


def test_a_perfectly_weekly_series_goes_on_as_it_was() -> None:
    middle, _ = median_and_spread(Constants(), history(WEEK), **NONE)
    np.testing.assert_allclose(middle[0], np.tile(WEEK, 2), rtol=1e-5, atol=1e-4)


def test_closed_weekday_stays_closed_without_a_spread() -> None:
    values = forecast(Constants(), history(WEEK), **NONE)
    assert values[0, 6].max() < 1e-2


def test_units_do_not_matter() -> None:
    small = forecast(Constants(), history(WEEK), **NONE)
    large = forecast(Constants(), history(WEEK) * 1000, **NONE)
    np.testing.assert_allclose(large, small * 1000, rtol=1e-3, atol=2.0)


def test_holiday_in_the_past_is_not_taken_for_a_weekday() -> None:
    sales = history(WEEK).copy()
    holiday = NONE["holiday"].copy()
    sales[0, 25], holiday[0, 25] = 0, 1
    constants = Constants(eve=0.0)
    middle, _ = median_and_spread(constants, sales, holiday, NONE["holiday_next"])
    np.testing.assert_allclose(middle[0], np.tile(WEEK, 2), rtol=1e-5, atol=1e-4)


def test_holiday_ahead_lowers_its_day_and_raises_its_eve() -> None:
    ahead = NONE["holiday_next"].copy()
    ahead[0, 4] = 1
    middle, _ = median_and_spread(Constants(eve=0.2, holiday_factor=0.3), history(WEEK), NONE["holiday"], ahead)
    assert middle[0, 4] == pytest.approx(0.3 * WEEK[4], rel=1e-4)
    assert middle[0, 3] == pytest.approx(np.exp(0.2) * WEEK[3], rel=1e-4)


def test_school_holidays_are_no_public_ones() -> None:
    assert public_share(np.array([0.0, 0.5, 0.75, 1.0], dtype=np.float32)).tolist() == [0.0, 0.0, 0.5, 1.0]


def test_graph_has_the_contracts_names_shapes_and_opset() -> None:
    graph = graph_of(Constants(), name="test")
    assert [entry.version for entry in graph.opset_import] == [OPSET]
    session = ort.InferenceSession(graph.SerializeToString())
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    assert inputs == {
        "sales": ("tensor(float)", ["batch", 30]),
        "holiday": ("tensor(float)", ["batch", 30]),
        "holiday_next": ("tensor(float)", ["batch", 14]),
    }
    assert [(node.name, node.shape) for node in session.get_outputs()] == [("forecast", ["batch", 14, 3])]


def test_fit_lowers_the_error_and_is_repeatable() -> None:
    series = made_series(count=6, days=120)
    windows = smoother_fit.windows_of(series, smoother_fit.fit_dates(series, 10))
    constants = smoother_fit.fit(windows, trials=30)
    assert constants == smoother_fit.fit(windows, trials=30)
    assert smoother_fit._loss(constants, windows) < smoother_fit._loss(Constants(), windows)


def test_fit_never_sees_the_days_it_is_tested_on() -> None:
    series = made_series(days=120)
    first_test = series.as_of_dates(10)[0]
    assert max(smoother_fit.fit_dates(series, 10)) + 14 <= first_test


def test_too_short_data_are_refused() -> None:
    with pytest.raises(ValueError, match="none left to fit on"):
        smoother_fit.fit_dates(made_series(days=50), 7)


def test_built_folder_proves_itself(tmp_path: Path) -> None:
    series = made_series(count=6, days=120, covariates=("promo",))
    card = smoother_fit.build(series, test_days=5, out=tmp_path / "a")
    smoother_fit.build(series, test_days=5, out=tmp_path / "b")
    for name in ("model.onnx", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert card == load_card(tmp_path / "a" / "card.json")
    smoother_fit.load_graph(tmp_path / "a")


def run(
    folder: Path, inputs: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    (result,) = ort.InferenceSession(folder / "model.onnx").run(None, inputs)
    return np.asarray(result, dtype=np.float32)


def test_committed_model_gives_its_golden_batch() -> None:
    golden = load_card(MODEL / "card.json").golden
    result = run(MODEL, {name: np.array(values, dtype=np.float32) for name, values in golden.inputs.items()})
    np.testing.assert_allclose(result, golden.outputs, rtol=golden.relative_tolerance, atol=golden.absolute_tolerance)


def test_committed_model_beats_both_baselines_and_its_card_is_true() -> None:
    try:
        series = bakery.load()
    except DataUnavailableError as error:
        pytest.skip(str(error))
    dates = series.as_of_dates(60)
    forecasts = np.stack([run(MODEL, smoother_fit.windows_of(series, [as_of]).inputs) for as_of in dates])
    model, *baselines = errors_of_all(series, dates, forecasts[..., 1])
    for baseline in baselines:
        assert model.daily < baseline.daily
        assert model.total < baseline.total
    card = load_card(MODEL / "card.json").accuracy["fp32"]
    assert (card.wape, card.wape_total) == pytest.approx((model.daily, model.total), abs=1e-3)
    actual = np.stack([series.actuals(as_of) for as_of in dates])
    assert 0.75 < np.mean((actual >= forecasts[..., 0]) & (actual <= forecasts[..., 2])) < 0.9
