"""What training minimises: the pinball loss in units, so that series count by their volume, plus the error of the total."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.training.model import QUANTILES


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """volume_power: windows weigh scale ** volume_power (1: as in WAPE, 0: all series alike).

    total_weight: weight of the absolute error of the median's 14-day total, which holds its bias down.
    """

    volume_power: float = 1.0
    total_weight: float = 0.3


def quantile_loss(quantiles: Tensor, actual: Tensor, counted: Tensor, scale: Tensor, config: LossConfig) -> Tensor:
    """Quantiles [batch, 14, 3] / scale; actual, counted [batch, 14]; scale [batch, 1] -> scalar.

    Days that don't count carry no loss: sales of a day out of stock aren't demand.
    """
    error = (actual / scale).unsqueeze(2) - quantiles
    pinball = torch.zeros_like(actual)
    for k, level in enumerate(QUANTILES):
        pinball = pinball + torch.maximum(level * error[:, :, k], (level - 1.0) * error[:, :, k])
    weights = scale**config.volume_power
    daily = (pinball * counted * weights).sum()
    total = ((error[:, :, 1] * counted).sum(1, keepdim=True).abs() * weights).sum()
    return (daily + config.total_weight * total) / (counted * weights).sum().clamp(min=1e-6)
