from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from demo.order_desk import Forecast, OrderDesk, Stock, usable
from demo.order_policy import Policy
from demo.replenishment_wire import proposal_of, proposal_value, stock_of, stock_value
from demo.single_object import ForeignValueError

TODAY = 100
FORECAST = Forecast(
    sku_id="sku",
    store_id="store",
    as_of=TODAY,
    quantiles=np.array([[5.0] * 14, [10.0] * 14, [20.0] * 14], np.float32),
    fallback_reason=None,
    model="made 1",
    partition=3,
    offset=9,
)
KEY = b"sku|store"


def desk(policy: Policy | None = None, forecast: Forecast = FORECAST) -> OrderDesk:
    return OrderDesk(
        policy=policy or Policy(critical_ratio=0.9),
        forecasts={KEY: forecast},
        stock={KEY: Stock(on_hand=4.0, on_order=0.0)},
    )


def test_a_change_is_one_until_it_is_settled() -> None:
    made = desk()
    changes = made.changes(made.keys(), TODAY)
    assert [(key, proposal and proposal.quantity) for key, proposal in changes] == [(KEY, 16.0)]
    assert len(made.changes(made.keys(), TODAY)) == 1
    made.settle(changes)
    assert made.changes(made.keys(), TODAY) == []


def test_a_proposal_that_was_read_back_is_the_same() -> None:
    made = desk(Policy(critical_ratio=0.87, pack=0.1))
    [(_, proposal)] = made.changes([KEY], TODAY)
    assert proposal is not None
    assert proposal_of(proposal_value(proposal)) == proposal


def test_the_days_from_the_order_on_are_covered_also_by_an_older_forecast() -> None:
    numbered = np.arange(42, dtype=np.float32).reshape(3, 14)
    days, refusal = usable(
        replace(FORECAST, as_of=TODAY - 2, quantiles=numbered), Policy(lead_days=1, review_days=3), TODAY
    )
    assert refusal is None
    assert days is not None
    assert days[0].tolist() == [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("changes", "policy", "words"),
    [
        ({"as_of": TODAY - 3}, {}, "too_old: made 3 days before, allowed are 2"),
        ({"as_of": TODAY + 1}, {}, "from_the_future: made 1 days after"),
        ({"fallback_reason": "engine_error"}, {}, "flagged: engine_error"),
        ({"quantiles": None}, {}, "unusable"),
        ({"as_of": TODAY - 1}, {"review_days": 14}, "too_short: 13 days from now on, 14 are to be covered"),
    ],
)
def test_a_refused_forecast_orders_nothing_and_says_why(
    changes: dict[str, object], policy: dict[str, int], words: str
) -> None:
    proposal = desk(Policy(**policy), replace(FORECAST, **changes)).decide(KEY, TODAY)  # type: ignore[arg-type]
    assert proposal is not None
    assert (proposal.quantity, proposal.order_up_to) == (0.0, 0.0)
    assert (proposal.refusal or "").startswith(words)


def test_a_flagged_forecast_is_widened_by_setting() -> None:
    policy = Policy(critical_ratio=0.9, flagged="widen", widening=2.0)
    proposal = desk(policy, replace(FORECAST, fallback_reason="engine_error")).decide(KEY, TODAY)
    assert proposal is not None
    assert proposal.refusal is None
    assert proposal.order_up_to == pytest.approx(30.0, rel=1e-6)


def test_without_stock_or_forecast_what_stands_is_withdrawn() -> None:
    made = desk()
    made.settle(made.changes([KEY], TODAY))
    made.stock.clear()
    changes = made.changes(made.keys(), TODAY)
    assert changes == [(KEY, None)]
    made.settle(changes)
    assert made.changes(made.keys(), TODAY) == []


def test_values_of_another_schema_and_cut_ones_are_refused() -> None:
    value = stock_value("sku", "store", Stock(on_hand=1.5, on_order=0.0), 7)
    assert stock_of(value) == Stock(on_hand=1.5, on_order=0.0)
    for wrong in (b"", b"\x00" + value, value[:-1], value + b"\x00"):
        with pytest.raises(ForeignValueError):
            stock_of(wrong)
    with pytest.raises(ForeignValueError, match="begins with"):
        proposal_of(value)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["on_hand", "on_order"])
def test_stock_that_is_no_number_is_foreign(field: str, wrong: float) -> None:
    stock = replace(Stock(on_hand=1.0, on_order=2.0), **{field: wrong})
    with pytest.raises(ForeignValueError, match=f"{field} .*expected finite"):
        stock_of(stock_value("sku", "store", stock, 0))
