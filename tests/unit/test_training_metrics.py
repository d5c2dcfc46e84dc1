from __future__ import annotations

import numpy as np
import pytest

from demo.training.metrics import Outcome, breakdown, pinball, report, summary
from schemas.accuracy import bias, wape


def made(origins: int = 2, series: int = 6) -> Outcome:
    random = np.random.default_rng(3)
    actual = random.gamma(2.0, 5.0, size=(origins, series, 14)).astype(np.float32)
    middle = actual * 1.1
    return Outcome(
        forecast=np.stack([middle * 0.5, middle, middle * 1.5], axis=-1).astype(np.float32),
        actual=actual,
        stocked=random.random(actual.shape) > 0.3,
        promo=random.random(actual.shape) > 0.5,
        holiday=np.zeros(actual.shape, dtype=bool),
        stores=np.array([0, 0, 1, 1, 2, 2])[:series],
        volume=np.arange(series, dtype=np.float32),
    )


def test_wape_and_bias_of_a_known_case() -> None:
    forecast, actual = np.array([3.0, 1.0], np.float32), np.array([2.0, 2.0], np.float32)
    assert wape(forecast, actual) == pytest.approx(0.5)
    assert bias(forecast, actual) == pytest.approx(0.0)
    assert np.isnan(wape(forecast, np.zeros(2, np.float32)))
    assert np.isnan(bias(forecast, np.zeros(2, np.float32)))


def test_weighted_pinball_loss_at_the_median_is_wape() -> None:
    case = made()
    assert pinball(case.forecast[..., 1], case.actual, 0.5) == pytest.approx(wape(case.forecast[..., 1], case.actual))


def test_a_high_quantile_is_punished_more_for_being_too_low() -> None:
    actual = np.full(4, 10.0, np.float32)
    low, high = np.full(4, 9.0, np.float32), np.full(4, 11.0, np.float32)
    assert pinball(low, actual, 0.9) == pytest.approx(9 * pinball(high, actual, 0.9), rel=1e-5)


def test_a_constant_excess_is_the_error_at_every_level() -> None:
    line = summary(made())
    levels = [value for key, value in line.items() if key.startswith("wape")]
    assert levels == pytest.approx([0.1] * len(levels), abs=1e-5)
    assert line["bias"] == pytest.approx(0.1, abs=1e-5)
    assert line["coverage_p10_p90"] == 1.0


def test_errors_that_cancel_vanish_in_the_sums() -> None:
    case = made(origins=1, series=2)
    case.forecast[..., 1] = case.actual
    case.forecast[0, 0, :, 1] += 1.0
    case.forecast[0, 1, :, 1] -= 1.0
    line = summary(case)
    assert line["wape_sku_day"] > 0.01
    assert line["wape_store_day"] == pytest.approx(0.0, abs=1e-6)
    assert line["wape_total_14_days"] == pytest.approx(0.0, abs=1e-6)


def test_top_keeps_the_series_of_the_largest_volume() -> None:
    case = made()
    top = case.top(2)
    np.testing.assert_array_equal(top.actual, case.actual[:, [5, 4]])
    np.testing.assert_array_equal(top.volume, [5.0, 4.0])


def test_breakdown_names_only_kinds_of_day_that_occur() -> None:
    parts = breakdown(made())
    assert set(parts["kind_of_day"]) == {"promotion", "no promotion", "no holiday"}
    assert list(parts["horizon_day"]) == [str(day) for day in range(1, 15)]


def test_report_has_no_top_that_is_larger_than_the_data() -> None:
    assert report(made())["top"] == {}
