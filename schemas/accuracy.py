"""Errors of quantile forecasts against what was sold: the formulas behind every accuracy that is written down.   (pure)

WAPE is the sum of absolute errors of the median over the sum of actual sales; bias the sum of errors over the same; the
pinball loss of level q is max(q * e, (q - 1) * e) of the error e = actual - forecast, after Koenker and Bassett (1978).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.engine_card import Accuracy

FloatArray = NDArray[np.float32]

CARD_DIGITS: Final = 4


def wape(forecast: FloatArray, actual: FloatArray) -> float:
    """Sum of absolute errors / sum of actual sales, of arrays of one shape; NaN if nothing was sold."""
    total = float(actual.sum(dtype=np.float64))
    return float(np.abs(forecast.astype(np.float64) - actual).sum()) / total if total else float("nan")


def bias(forecast: FloatArray, actual: FloatArray) -> float:
    """Sum of errors / sum of actual sales; above 0: forecast too high. NaN if nothing was sold."""
    total = float(actual.sum(dtype=np.float64))
    return float((forecast.astype(np.float64) - actual).sum()) / total if total else float("nan")


def pinball_losses(forecast: FloatArray, actual: FloatArray, level: float) -> NDArray[np.float64]:
    """Pinball loss of one quantile, element by element, in units of the sales."""
    error = actual.astype(np.float64) - forecast
    losses: NDArray[np.float64] = np.maximum(level * error, (level - 1.0) * error)
    return losses


def median_index(quantiles: Sequence[float]) -> int:
    """The place of the quantile closest to the median."""
    return int(np.argmin(np.abs(np.asarray(quantiles) - 0.5)))


def accuracy_of(forecast: FloatArray, actual: FloatArray, quantiles: Sequence[float]) -> Accuracy:
    """Errors of forecasts float32[rows, horizon, quantiles] against sales float32[rows, horizon], not rounded.

    Raises `ValueError` if nothing was sold, as no error is relative to nothing.
    """
    if not actual.sum(dtype=np.float64) > 0:
        raise ValueError("actual sales: got a sum of 0, expected some sales to measure errors against")
    middle = forecast[:, :, median_index(quantiles)]
    losses = [pinball_losses(forecast[:, :, place], actual, level) for place, level in enumerate(quantiles)]
    return Accuracy(
        wape=wape(middle, actual),
        wape_total=wape(middle.sum(axis=1, dtype=np.float64), actual.sum(axis=1, dtype=np.float64)),
        bias=bias(middle, actual),
        pinball=float(np.mean([loss.mean() for loss in losses])),
        rows=len(actual),
    )


def rounded(accuracy: Accuracy, digits: int = CARD_DIGITS) -> Accuracy:
    """The same to as many digits as cards hold, so that another machine's last bits don't make another card."""
    values = accuracy.model_dump()
    return Accuracy(**{name: round(value, digits) if name != "rows" else value for name, value in values.items()})
