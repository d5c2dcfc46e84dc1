"""Whatever the forecast: a higher quantile, or a dearer lost sale, never orders less; nothing is ordered below zero or for nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from demo.order_policy import FloatArray, Policy, daily_quantile, order_up_to

STEPS = arrays(np.float32, (3, 5), elements=st.floats(0.0, 100.0, width=16))
SHARES = st.floats(0.0, 1.0)


def ascending(steps: FloatArray) -> FloatArray:
    return np.cumsum(steps, axis=0, dtype=np.float32)


@given(STEPS, STEPS, st.floats(0.1, 0.9), SHARES)
def test_higher_quantiles_never_order_less(steps: FloatArray, more: FloatArray, ratio: float, share: float) -> None:
    lower = ascending(steps)
    higher = np.maximum.accumulate(lower + more, axis=0)
    levels = [order_up_to(each, ratio, error_correlation=share) for each in (lower, higher)]
    assert levels[1] >= levels[0] - 1e-3


@given(STEPS, st.floats(0.01, 0.99), st.floats(0.01, 0.99), SHARES)
def test_a_higher_critical_ratio_never_orders_less(steps: FloatArray, a: float, b: float, share: float) -> None:
    quantiles = ascending(steps)
    levels = [order_up_to(quantiles, ratio, error_correlation=share) for ratio in sorted((a, b))]
    assert 0.0 <= levels[0] <= levels[1] + 1e-6


@given(STEPS, st.floats(0.01, 0.99), SHARES)
def test_one_day_alone_is_its_quantile(steps: FloatArray, ratio: float, share: float) -> None:
    quantiles = ascending(steps)[:, :1]
    level = order_up_to(quantiles, ratio, error_correlation=share)
    np.testing.assert_allclose(daily_quantile(quantiles[:, 0], ratio), level, rtol=1e-3, atol=1e-3)


@given(st.floats(0.0, 1e6), st.floats(-1e3, 1e6), st.floats(0.1, 100.0))
def test_an_order_is_whole_packs_just_enough_and_none_if_the_stock_covers(
    up_to: float, there: float, pack: float
) -> None:
    quantity = Policy(pack=pack).quantity(up_to, there)
    assert quantity >= 0.0
    assert quantity == 0.0 or there < up_to
    assert there + quantity >= up_to - 1e-5 * pack - 1e-6
    assert quantity == 0.0 or there + quantity - up_to < pack * 1.001 + 1e-6
