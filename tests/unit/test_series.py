from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from demo.series import SeriesSet, weekdays
from tests.helpers.series import made_series


def test_windows_end_on_as_of_and_the_future_begins_the_day_after() -> None:
    series = made_series(covariates=("promo", "temperature"))
    as_of = int(series.dates[40])
    windows = series.windows(as_of)
    assert set(windows) == {"sales", "promo", "temperature", "promo_next", "temperature_next"}
    np.testing.assert_array_equal(windows["sales"], series.sales[:, 11:41])
    assert series.temperature is not None
    np.testing.assert_array_equal(windows["temperature_next"], series.temperature[:, 41:55])
    np.testing.assert_array_equal(series.actuals(as_of), series.sales[:, 41:55])


def test_as_of_dates_are_the_last_ones_with_history_and_known_sales() -> None:
    series = made_series(days=50)
    every = series.as_of_dates(100)
    assert every == [int(day) for day in series.dates[29:36]]
    assert series.as_of_dates(2) == every[-2:]
    for as_of in (every[0], every[-1]):
        assert series.windows(as_of)["sales"].shape == (4, 30)
        assert series.actuals(as_of).shape == (4, 14)


@pytest.mark.parametrize("offset", [-1, 7])
def test_as_of_without_history_or_future_is_refused(offset: int) -> None:
    series = made_series(days=50)
    with pytest.raises(ValueError, match="needs 30 days up to it and 14 after"):
        series.windows(series.as_of_dates(100)[0] + offset)


def test_select_keeps_everything_of_the_chosen() -> None:
    series = made_series()
    chosen = series.select(np.array([2, 0]))
    assert chosen.sku_ids == (series.sku_ids[2], series.sku_ids[0])
    assert chosen.covariates().keys() == series.covariates().keys()
    np.testing.assert_array_equal(chosen.sales, series.sales[[2, 0]])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("store_ids", ("a",), "1 store_ids for 1|1 store_ids for 4"),
        ("dates", np.array([1, 3] * 40, dtype=np.int32), "dates have gaps"),
        ("sales", np.zeros((4, 80)), r"got float64\(4, 80\), expected float32"),
        ("promo", np.zeros((4, 79), dtype=np.float32), r"promo: got float32\(4, 79\)"),
        ("holiday", np.full((4, 80), np.nan, dtype=np.float32), "holiday: holds values that aren't finite"),
        ("in_stock", np.zeros((4, 1), dtype=bool), "in_stock"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, message: str) -> None:
    good = made_series()
    fields = {name: getattr(good, name) for name in SeriesSet.__slots__}
    with pytest.raises(ValueError, match=message):
        SeriesSet(**(fields | {field: value}))


def test_weekdays_agree_with_the_calendar() -> None:
    dates = np.arange(17_000, 17_020, dtype=np.int32)
    expected = [datetime.fromtimestamp(int(day) * 86_400, tz=UTC).weekday() for day in dates]
    assert weekdays(dates).tolist() == expected
