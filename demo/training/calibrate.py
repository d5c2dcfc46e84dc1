"""Fits the calibration that is part of the graph on origins that training didn't see.

Every quantile is moved to where its own pinball loss is smallest there: the median by a factor, P10 and P90 by a factor on
their distance from the median, each piecewise linear in the log of the window's mean. All days enter, also those out of
stock: training leaves them out so that the networks learn demand; what is compared with recorded sales is calibrated on them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from demo.training.model import Forecaster
from demo.training.windows import Batch, Windows

_TAIL = 0.1
_PRIOR_DAYS = 2000.0  # a knot with this many days near it trusts them and the whole half and half
_RANGE = (0.3, 3.0)
_TINY = 1e-6


@torch.inference_mode()
def calibrate(model: Forecaster, windows: Windows, as_of: list[int]) -> None:
    """Set `model.calibration.factors` from the origins `as_of` (days as indices)."""
    calibration = model.calibration
    calibration.factors.fill_(1.0)
    batches = [windows.origin(day) for day in as_of]
    forecast = torch.cat([_predicted(model, batch) for batch in batches])
    actual = torch.cat([batch.actual for batch in batches])
    hats = calibration.hats(torch.cat([_scale(model, batch) for batch in batches]))
    low, median, high = forecast.unbind(2)
    factor = _factors(hats, actual / median.clamp(min=_TINY), median, 0.5)
    centre = median * (hats @ factor).unsqueeze(1)
    calibration.factors[:, 1] = factor
    ones = torch.ones_like(actual)
    calibration.factors[:, 0] = _factors(hats, (centre - actual) / (median - low).clamp(min=_TINY), ones, 1.0 - _TAIL)
    calibration.factors[:, 2] = _factors(hats, (actual - centre) / (high - median).clamp(min=_TINY), ones, 1.0 - _TAIL)


def _predicted(model: Forecaster, batch: Batch, rows: int = 16384) -> Tensor:
    parts = range(0, len(batch.actual), rows)
    return torch.cat([model({name: field[k : k + rows] for name, field in batch.fields.items()}) for k in parts])


def _scale(model: Forecaster, batch: Batch) -> Tensor:
    scale: Tensor = model.features(batch.fields).scale
    return scale


def _factors(hats: Tensor, ratio: Tensor, weights: Tensor, level: float) -> Tensor:
    """Per knot: the weighted quantile of `ratio` over the days near it, drawn to that of all days. Both [windows, 14]."""
    overall = _quantile(ratio.flatten(), weights.flatten(), level)
    factors = []
    for knot in range(hats.shape[1]):
        near = hats[:, knot] > 0
        days = float(hats[near, knot].sum()) * ratio.shape[1]
        trust = days / (days + _PRIOR_DAYS)
        local = (
            _quantile(ratio[near].flatten(), (weights[near] * hats[near, knot : knot + 1]).flatten(), level)
            if days
            else overall
        )
        factors.append(trust * local + (1.0 - trust) * overall)
    return torch.stack(factors).clamp(*_RANGE)


def _quantile(values: Tensor, weights: Tensor, level: float) -> Tensor:
    order = torch.argsort(values)
    cumulative = torch.cumsum(weights[order].double(), 0)
    place = torch.searchsorted(cumulative, level * cumulative[-1]).clamp(max=len(order) - 1)
    return values[order[place]]
