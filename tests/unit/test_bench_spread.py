import pytest

from bench.spread import percentiles, slope, spread


def test_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0}


def test_percentiles_are_values_that_were_measured() -> None:
    found = percentiles([float(value) for value in range(200, 0, -1)])
    assert found == {"p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0}


def test_one_value_is_every_percentile() -> None:
    assert set(percentiles([7.0]).values()) == {7.0}


def test_slope_is_growth_per_step() -> None:
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)


@pytest.mark.parametrize("summary", [spread, percentiles])
def test_no_values_is_an_error(summary: object) -> None:
    assert callable(summary)
    with pytest.raises(ValueError, match="got no values"):
        summary([])
