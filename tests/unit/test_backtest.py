from __future__ import annotations

import numpy as np
import pytest

from demo import backtest, backtest_report
from tests.helpers.series import made_series


def made(spread: float = 0.5) -> backtest.Backtest:
    """Forecasts whose median is what is sold."""
    series = made_series(count=6, days=140)
    dates = series.as_of_dates(5)
    middle = np.stack([series.actuals(as_of) for as_of in dates])
    return backtest.run(series, dates, np.stack([middle * (1 - spread), middle, middle * (1 + spread)], axis=-1))


def test_result_by_hand() -> None:
    ordered = np.array([[10.0, 10.0], [10.0, 0.0]], np.float32)
    demand = np.array([[8.0, 15.0], [10.0, 0.0]], np.float32)
    found = backtest.result_of("made", 0.8, ordered, demand)
    assert (found.lost_units, found.wasted_units) == (5.0, 2.0)
    assert found.served == pytest.approx(28 / 33)
    assert found.days_covered == pytest.approx(2 / 3)
    assert found.waste == pytest.approx(2 / 30)
    assert found.cost == pytest.approx((0.8 * 5 + 0.2 * 2) / 33)


def test_nothing_sold_and_nothing_ordered_is_perfect() -> None:
    nothing = np.zeros((2, 3), np.float32)
    found = backtest.result_of("made", 0.8, nothing, nothing)
    assert (found.served, found.days_covered, found.waste, found.cost) == (1.0, 1.0, 0.0, 0.0)


def test_every_day_is_ordered_for_by_the_newest_forecast_before_it() -> None:
    slots = backtest.slots_of([10, 11, 13])
    assert list(slots.days) == list(range(11, 28))
    assert list(slots.origin)[:4] == [0, 1, 1, 2]
    assert list(slots.ahead)[:4] == [1, 1, 2, 1]
    assert slots.ahead[-1] == 14


def test_perfect_foresight_costs_nothing_and_all_serve_more_as_the_ratio_rises() -> None:
    found = made()
    assert [each.name for each in found.table] == ["model", "seasonal naive", "28-day mean", "perfect foresight"]
    assert (found.table[-1].served, found.table[-1].waste, found.table[-1].cost) == (1.0, 0.0, 0.0)
    for results in found.curves.values():
        assert np.all(np.diff([each.served for each in results]) >= 0)
        assert np.all(np.diff([each.waste for each in results]) >= 0)
    assert found.curves["model"][backtest.CURVE_RATIOS.index(0.5)].cost == pytest.approx(0.0, abs=1e-6)


def test_rules_are_calibrated_on_days_before_those_judged() -> None:
    """What is sold after the last forecast was made changes what comes of the orders, not the orders."""
    series = made_series(count=6, days=140)
    dates = series.as_of_dates(5)
    forecasts = np.ones((5, 6, 14, 3), np.float32)
    first = backtest.run(series, dates, forecasts).curves["28-day mean"][-1]
    demand = series.sales[:, -18:].sum(dtype=np.float64)
    series.sales[:, -14:] = 0
    second = backtest.run(series, dates, forecasts).curves["28-day mean"][-1]
    sold = series.sales[:, -18:].sum(dtype=np.float64)
    ordered = [units - each.lost_units + each.wasted_units for units, each in ((demand, first), (sold, second))]
    assert ordered[0] == pytest.approx(ordered[1], rel=1e-6)


def test_series_without_forecasts_are_left_out_for_all() -> None:
    series = made_series(count=6, days=140)
    dates = series.as_of_dates(5)
    forecasts = np.ones((5, 6, 14, 3), np.float32)
    forecasts[2, 1] = np.nan
    assert backtest.run(series, dates, forecasts).series == 5
    with pytest.raises(ValueError, match="no series has a forecast on each of the 5 days"):
        backtest.run(series, dates, np.full_like(forecasts, np.nan))


def test_the_report_has_a_row_for_each_policy_and_says_what_it_cannot_know() -> None:
    found = made()
    assert [row[0] for row in backtest_report.rows(found)] == [each.name for each in found.table]
    assert all(len(row) == len(backtest_report.COLUMNS) for row in backtest_report.rows(found))
    assert "understated" in " ".join(backtest_report.notes(found))
    assert backtest_report.chart(found).startswith('<svg role="img"')
