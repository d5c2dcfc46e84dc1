from __future__ import annotations

import numpy as np
import pytest

from demo.series import weekday_mean
from demo.training.baselines import RULES, rules, weekday_profile
from tests.helpers.series import made_series


def test_weekday_profile_is_the_mean_of_the_four_same_weekdays() -> None:
    history = np.arange(30, dtype=np.float32)[None]
    forecast = weekday_profile(history)
    assert forecast[0, 0] == pytest.approx(np.mean([2, 9, 16, 23]))
    np.testing.assert_array_equal(forecast[0, :7], forecast[0, 7:])


def test_rules_give_ordered_quantiles_for_every_origin_and_series() -> None:
    series = made_series(days=80)
    found = rules(series, [50, 57], [40])
    assert set(found) == set(RULES)
    for forecast in found.values():
        assert forecast.shape == (2, len(series), 14, 3)
        assert (np.diff(forecast, axis=3) >= 0).all()
        assert (forecast >= 0).all()


def test_weekday_mean_puts_each_weekday_in_its_place() -> None:
    days = np.arange(17_000, 17_000 + 400)
    sales = ((days + 3) % 7).astype(np.float32)[None]
    for as_of in range(17_390, 17_400):
        known = sales[:, : as_of - 17_000 + 1]
        np.testing.assert_allclose(weekday_mean(known, as_of)[0], np.arange(7))


def test_weekday_mean_of_a_short_history_is_unknown() -> None:
    assert weekday_mean(np.ones((2, 55), np.float32), 17_000).tolist() == [[0.0] * 7] * 2
    assert weekday_mean(np.ones((1, 56), np.float32), 17_000).tolist() == [[1.0] * 7]


def test_weekday_mean_forgets_what_is_over_a_year_ago() -> None:
    sales = np.concatenate([np.full(100, 9.0), np.ones(364)]).astype(np.float32)[None]
    assert weekday_mean(sales, 17_000).tolist() == [[1.0] * 7]
