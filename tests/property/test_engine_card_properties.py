from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.engine_card import CardError, dump_card, parse_card
from tests.helpers.cards import card_content

FLOATS = st.floats(0, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    model=st.text(min_size=1),
    rows=st.tuples(st.integers(1, 9), st.integers(10, 99), st.integers(100, 999)),
    sales=st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=4),
    bias=st.floats(-1, 1),
    budget=st.none() | st.floats(0.001, 1e6),
)
def test_json_round_trip(
    model: str, rows: tuple[int, int, int], sales: list[list[float]], bias: float, budget: float | None
) -> None:
    golden = {
        "inputs": {"sales": sales, "price": [1.0] * len(sales)},
        "outputs": [[[1.0, 2.0], [3.0, 4.0]]] * len(sales),
        "relative_tolerance": 0.1,
        "absolute_tolerance": 0.1,
    }
    accuracy = {"fp32": {"wape": 0.2, "wape_total": 0.1, "bias": bias, "pinball": 1.0, "rows": 10}}
    profile = dict(zip(("min_rows", "opt_rows", "max_rows"), rows, strict=True))
    content = card_content(model=model, golden=golden, accuracy=accuracy, profile=profile, latency_budget_ms=budget)
    card = parse_card(json.dumps(content))
    assert parse_card(dump_card(card)) == card
    assert dump_card(parse_card(dump_card(card))) == dump_card(card)


@given(field=st.sampled_from(sorted(card_content())), value=JSON)
def test_any_value_gives_a_card_or_a_card_error(field: str, value: Any) -> None:
    try:
        card = parse_card(json.dumps(card_content(**{field: value})))
    except CardError as error:
        assert error.problems  # noqa: PT017 - one of two allowed outcomes
    else:
        assert parse_card(dump_card(card)) == card
