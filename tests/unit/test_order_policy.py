from __future__ import annotations

import numpy as np
import pytest

from demo.order_policy import Policy, PolicyError, daily_quantile, order_up_to, three_quantiles

DAY = np.array([[5.0], [10.0], [20.0]], np.float32)


@pytest.mark.parametrize(("ratio", "level"), [(0.1, 5.0), (0.5, 10.0), (0.9, 20.0)])
def test_the_three_quantiles_of_one_day_are_met_exactly(ratio: float, level: float) -> None:
    assert order_up_to(DAY, ratio, error_correlation=0.2) == pytest.approx(level, rel=1e-6)
    assert daily_quantile(DAY[:, 0], ratio) == pytest.approx(level, rel=1e-6)


def test_several_days_lie_between_independent_and_all_wrong_together() -> None:
    days = np.repeat(DAY, 4, axis=1)
    levels = [order_up_to(days, 0.9, error_correlation=share) for share in (0.0, 0.5, 1.0)]
    assert levels == pytest.approx([40 + 20, 40 + 10 * np.sqrt(0.5 * 4 + 0.5 * 16), 80], rel=1e-6)


def test_widening_stretches_the_distance_from_the_median() -> None:
    assert order_up_to(DAY, 0.9, error_correlation=0.0, widening=1.5) == pytest.approx(25.0, rel=1e-6)


def test_nothing_is_ordered_when_the_stock_covers_and_packs_are_whole() -> None:
    policy = Policy(pack=6.0)
    assert [policy.quantity(20.0, position) for position in (25.0, 20.0, 19.0, 14.0, 13.0)] == [
        0.0,
        0.0,
        6.0,
        6.0,
        12.0,
    ]


def test_what_spoils_overnight_does_not_count_as_there() -> None:
    assert Policy(perishable=True).position(on_hand=5.0, on_order=2.0) == 2.0
    assert Policy().position(on_hand=5.0, on_order=2.0) == 7.0


def test_what_is_owed_counts_also_against_what_spoils_overnight() -> None:
    assert Policy(perishable=True).position(on_hand=-3.0, on_order=2.0) == -1.0


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(lead_days=-1, review_days=0, critical_ratio=1.0, pack=0.0, perishable=True)
    for name in ("lead_days", "review_days", "critical_ratio", "pack", "perishable"):
        assert f"{name}: got" in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "quantiles"),
    [
        ([0.1, 0.5], [[1.0], [2.0]]),
        ([0.1, 0.5, 0.9], [[1.0], [2.0], [3.0, 4.0]]),
        ([0.1, 0.5, 0.9], [[1.0], [2.0], [1.5]]),
        ([0.1, 0.5, 0.9], [[-1.0], [2.0], [3.0]]),
        ([0.1, 0.5, 0.9], [[1.0], [2.0], [float("nan")]]),
    ],
)
def test_quantiles_that_cannot_be_ordered_by_are_none(levels: list[float], quantiles: list[list[float]]) -> None:
    assert three_quantiles(levels, quantiles) is None


def test_further_quantiles_are_left_out() -> None:
    found = three_quantiles(np.array([0.1, 0.25, 0.5, 0.9], np.float32).tolist(), [[1.0], [1.5], [2.0], [3.0]])
    assert found is not None
    assert found.tolist() == [[1.0], [2.0], [3.0]]
