"""Fits the calibration that is part of the graph on origins that training didn't see: bias by volume, coverage of P10 and P90."""

from __future__ import annotations

import torch
from torch import Tensor

from demo.training.model import Forecaster
from demo.training.windows import Batch, Windows

_TAIL = 0.1
_PRIOR_SHARE = 0.02  # a knot is drawn to the overall factor as by this share of all sales
_RANGE = (0.3, 3.0)


@torch.inference_mode()
def calibrate(model: Forecaster, windows: Windows, as_of: list[int], *, median_share: float) -> None:
    """Set `model.calibration.factors` from the origins `as_of`.

    median_share: how far the median's factor goes from 1 to the one that removes the bias (0 leaves the median alone).
    """
    calibration = model.calibration
    calibration.factors.fill_(1.0)
    batches = [windows.origin(day) for day in as_of]
    forecast = torch.cat([_predicted(model, batch) for batch in batches])
    actual = torch.cat([batch.actual for batch in batches])
    counted = torch.cat([batch.counted for batch in batches])
    scale = torch.cat([_scale(model, batch) for batch in batches])
    hats = calibration.hats(scale)
    median = forecast[:, :, 1]
    factor = _factors(hats, (actual * counted).sum(1), (median * counted).sum(1)) ** median_share
    centre = median * (hats @ factor).unsqueeze(1)
    calibration.factors[:, 1] = factor
    below = (centre - actual) / (median - forecast[:, :, 0]).clamp(min=1e-6)
    above = (actual - centre) / (forecast[:, :, 2] - median).clamp(min=1e-6)
    for column, ratio in ((0, below), (2, above)):
        calibration.factors[:, column] = _gap_factors(hats, ratio, counted)


def _predicted(model: Forecaster, batch: Batch, rows: int = 16384) -> Tensor:
    parts = range(0, len(batch.actual), rows)
    return torch.cat([model({name: field[k : k + rows] for name, field in batch.fields.items()}) for k in parts])


def _scale(model: Forecaster, batch: Batch) -> Tensor:
    scale: Tensor = model.features(batch.fields).scale
    return scale


def _factors(hats: Tensor, actual: Tensor, forecast: Tensor) -> Tensor:
    """Per knot: actual / forecast of the windows near it, drawn to the ratio of the whole."""
    overall = actual.sum() / forecast.sum()
    prior = _PRIOR_SHARE * forecast.sum()
    return ((hats * actual.unsqueeze(1)).sum(0) + prior * overall) / ((hats * forecast.unsqueeze(1)).sum(0) + prior)


def _gap_factors(hats: Tensor, ratio: Tensor, counted: Tensor) -> Tensor:
    """Per knot: the factor on the gap that leaves a tenth of the days beyond it. ratio [windows, 14]: error / gap."""
    overall = _upper_quantile(ratio[counted > 0], torch.ones_like(ratio[counted > 0]))
    factors = []
    for knot in range(hats.shape[1]):
        near = hats[:, knot] > 0
        weights = (hats[near, knot].unsqueeze(1) * counted[near]).flatten()
        enough = float(weights.sum())
        local = _upper_quantile(ratio[near].flatten(), weights) if enough > 0 else overall
        trust = enough / (enough + 2000.0)
        factors.append(trust * local + (1.0 - trust) * overall)
    return torch.stack(factors).clamp(*_RANGE)


def _upper_quantile(values: Tensor, weights: Tensor) -> Tensor:
    order = torch.argsort(values)
    cumulative = torch.cumsum(weights[order].double(), 0)
    place = torch.searchsorted(cumulative, (1.0 - _TAIL) * cumulative[-1]).clamp(max=len(order) - 1)
    return values[order[place]]
