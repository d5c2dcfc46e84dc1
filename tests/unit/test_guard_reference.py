from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.engine_card import CARD_NAME, OutputHistogram, load_card
from tests.helpers.models import tiny_model
from worker.guard_reference import EDGES, reference_of


def test_what_the_card_says(tmp_path: Path) -> None:
    card = load_card(tiny_model(tmp_path) / CARD_NAME)
    histogram = OutputHistogram(mean_of="sales", edges=[-1.0, 0.0, 1.0, 2.0], shares=[0.5, 0.25, 0.25], usual_index=0.3)
    known = reference_of(card.model_copy(update={"output_histogram": histogram, "latency_budget_ms": 50.0}))
    assert (known.mean_of, known.latency_budget_s, known.budget_rows) == ("sales", 0.05, card.profile.opt_rows)
    assert known.mean == pytest.approx(-0.25 + 0.125 + 0.375)
    assert known.usual_index == 0.3
    assert known.control is not None
    assert {name: values.shape for name, values in known.control.items()} == {"sales": (2, 30), "promo": (2, 30)}
    assert {values.dtype for values in known.control.values()} == {np.dtype(np.float32)}


def test_a_card_without_histogram_or_budget_still_has_a_control_batch(tmp_path: Path) -> None:
    known = reference_of(load_card(tiny_model(tmp_path) / CARD_NAME))
    assert (known.mean_of, known.shares, known.latency_budget_s) == (None, None, None)
    assert known.control is not None


def test_our_bins_are_those_of_the_cards_in_the_repository() -> None:
    np.testing.assert_allclose(EDGES, np.arange(-10, 11) / 5, atol=1e-12)
