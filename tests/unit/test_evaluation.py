from __future__ import annotations

import numpy as np
import pytest

from demo.evaluation import (
    ForecastRecord,
    errors_of_all,
    grid,
    mean_of_28_days,
    outcomes,
    seasonal_naive,
    wape,
)
from tests.helpers.series import made_series


def test_each_input_with_one_outcome_is_exactly_once() -> None:
    result = outcomes([(0, 0), (0, 1), (1, 0)], [(0, 1), (1, 0)], [((0, 0), "truncated")])
    assert result.exactly_once
    assert (result.inputs, result.forecasts, result.dead_letters) == (3, 2, 1)
    assert result.reasons == {"truncated": 1}


def test_lost_doubled_and_stray_outcomes_are_counted() -> None:
    result = outcomes([(0, 0), (0, 1), (0, 2)], [(0, 0), (0, 0), (5, 5)], [((0, 0), "truncated")])
    assert (result.lost, result.duplicates, result.strays) == (2, 2, 1)
    assert not result.exactly_once


@pytest.mark.parametrize(
    ("forecasts", "dead_letters"),
    [([], []), ([(0, 0), (0, 0)], []), ([(0, 0)], [((0, 0), "truncated")]), ([(0, 0), (0, 1)], [])],
)
def test_any_single_fault_is_seen(
    forecasts: list[tuple[int, int]], dead_letters: list[tuple[tuple[int, int], str]]
) -> None:
    assert not outcomes([(0, 0)], forecasts, dead_letters).exactly_once


def test_wape_per_day_total_and_day_ahead() -> None:
    errors = wape("x", np.array([[1, 4]], dtype=np.float32), np.array([[2, 2]], dtype=np.float32))
    assert (errors.daily, errors.total, errors.by_day_ahead) == (0.75, 0.25, (0.5, 1.0))


def test_baselines() -> None:
    history = np.arange(30, dtype=np.float32)[None]
    assert seasonal_naive(history)[0].tolist() == [*range(23, 30), *range(23, 30)]
    assert mean_of_28_days(history)[0].tolist() == [15.5] * 14


def test_forecasts_are_put_where_they_belong_and_missing_ones_count_for_nobody() -> None:
    series = made_series()
    dates = series.as_of_dates(2)
    quantiles = np.full((14, 3), 7.0, dtype=np.float32)
    record = ForecastRecord(
        source=(0, 0), sku_id=series.sku_ids[3], store_id=series.store_ids[3], as_of=dates[1], quantiles=quantiles
    )
    values = grid(series, dates, [record])
    assert values.shape == (2, 4, 14, 3)
    assert np.argwhere(np.isfinite(values[:, :, 0, 0])).tolist() == [[1, 3]]
    model, naive, mean = errors_of_all(series, dates, values[..., 1])
    actual = series.actuals(dates[1])[3]
    assert model.daily == pytest.approx(np.abs(7.0 - actual).sum() / actual.sum(), rel=1e-5)
    assert (naive.name, mean.name) == ("seasonal naive", "28-day mean")
    last_week = np.tile(series.windows(dates[1])["sales"][3, -7:], 2)
    assert naive.daily == pytest.approx(np.abs(last_week - actual).sum() / actual.sum(), rel=1e-5)


def test_without_any_forecast_the_grid_is_empty() -> None:
    series = made_series()
    assert np.isnan(grid(series, series.as_of_dates(2), [])).all()
