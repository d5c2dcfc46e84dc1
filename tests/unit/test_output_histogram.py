from __future__ import annotations

import numpy as np
import pytest

from demo.output_histogram import WINDOW_ROWS, reference


def day(ratio: float, rows: int = WINDOW_ROWS) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]:
    """Forecasts that are `ratio` times the recent mean, and the sales."""
    return np.full((rows, 14, 3), 10.0 * ratio, np.float32), np.full((rows, 30), 10.0, np.float32)


def test_shares_are_of_all_days_together() -> None:
    made = reference([day(1.1), day(1.1), day(0.9), day(0.9)])  # type: ignore[list-item]
    assert made.mean_of == "sales"
    assert made.shares[9:11] == pytest.approx([0.5, 0.5])


def test_days_that_differ_make_windows_that_differ_and_equal_ones_do_not() -> None:
    assert reference([day(1.1)] * 4).usual_index == pytest.approx(0.0, abs=0.02)  # type: ignore[list-item]
    assert reference([day(1.1), day(0.9)]).usual_index > 1.0  # type: ignore[list-item]


def test_fewer_rows_than_a_window_say_nothing_of_windows() -> None:
    assert reference([day(1.1, rows=100)]).usual_index == 0.0  # type: ignore[list-item]
