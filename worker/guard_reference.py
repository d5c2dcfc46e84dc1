"""What an engine's forecasts are held against: taken from its card when it is loaded.                          (pure)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.engine_card import EngineCard

EDGES: NDArray[np.float64] = np.linspace(-2.0, 2.0, 21)
"""Bins of log(forecast / recent mean) where no card says others: 0.2 wide, a fifth up or down."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """How forecasts of one engine usually are, and what it may take.

    mean_of: the input that holds a row's own history (float32[rows, days], units per day), None if the card names none.
    edges float64[n + 1], shares float64[n]: usual distribution of log(forecast / recent mean), see `OutputHistogram`.
    mean: of the same, from the middles of the bins. usual_index: see `OutputHistogram`. latency_budget_s: for a batch of up to `budget_rows` rows.
    control: a batch that the engine computes if it works at all, input name -> float32[rows, ...]; None if unknown.
    """

    mean_of: str | None = None
    edges: NDArray[np.float64] | None = None
    shares: NDArray[np.float64] | None = None
    mean: float = 0.0
    usual_index: float = 0.0
    latency_budget_s: float | None = None
    budget_rows: int = 1
    control: dict[str, NDArray[np.float32]] | None = None


def reference_of(card: EngineCard) -> Reference:
    """The reference that `card` holds."""
    histogram, budget_ms = card.output_histogram, card.latency_budget_ms
    control = {name: np.asarray(values, np.float32) for name, values in card.golden.inputs.items()}
    limits = {
        "latency_budget_s": None if budget_ms is None else budget_ms / 1000.0,
        "budget_rows": card.profile.opt_rows,
    }
    if histogram is None:
        return Reference(control=control, **limits)  # type: ignore[arg-type]
    edges, shares = np.array(histogram.edges), np.array(histogram.shares)
    middles = (edges[:-1] + edges[1:]) / 2
    return Reference(
        mean_of=histogram.mean_of,
        edges=edges,
        shares=shares,
        mean=float(middles @ shares),
        usual_index=histogram.usual_index,
        control=control,
        **limits,  # type: ignore[arg-type]
    )
