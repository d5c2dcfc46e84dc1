"""A forecaster: features, a network, quantiles that can't cross, and the calibration, as one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from demo.training.features import FeatureConfig, WindowFeatures
from demo.training.networks import LstmNetwork, MixerNetwork, Network, TransformerNetwork

QUANTILES: Final = (0.1, 0.5, 0.9)
NETWORKS: Final = {"lstm": LstmNetwork, "transformer": TransformerNetwork, "tsmixer": MixerNetwork}

_LOG_RANGE: Final = (-8.0, 3.0)
_LOWER_MARGIN: Final = 0.01  # of the window's mean: P10 is exactly 0 on days when a shop is likely closed
_UPPER_FLOOR: Final = 0.1  # of the window's mean: keeps P90 above zero where the median is zero


class QuantileHead(nn.Module):
    """Hidden [batch, 14, width] -> quantiles / scale [batch, 14, 3], ascending and not negative by construction."""

    def __init__(self, width: int, static: int, dropout: float) -> None:
        super().__init__()
        self.static = nn.Linear(static, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 3)
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            self.output.bias.copy_(torch.tensor([0.0, 0.5, -1.0]))

    def forward(self, hidden: Tensor, static: Tensor, base: Tensor) -> Tensor:
        """The median starts from base [batch, 14], the same weekday's mean / scale."""
        x = self.norm(hidden) + self.static(static).unsqueeze(1)
        x = self.output(self.dropout(torch.relu(self.hidden(x))))
        median = torch.exp((torch.log(base + 0.02) + x[:, :, 0]).clamp(*_LOG_RANGE))
        lower = torch.relu(median * torch.sigmoid(x[:, :, 1]) - _LOWER_MARGIN)
        upper = median + (median + _UPPER_FLOOR) * nn.functional.softplus(x[:, :, 2])
        return torch.stack([lower, median, upper], 2)


class Calibration(nn.Module):
    """Factors on the median and on the two gaps, piecewise linear in the log of the window's mean; all 1 at first."""

    places: Tensor
    factors: Tensor

    def __init__(self, knots: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)) -> None:
        super().__init__()
        self.first, self.count = knots[0], len(knots)
        self.register_buffer("places", torch.arange(self.count, dtype=torch.float32), persistent=False)
        self.register_buffer("factors", torch.ones(self.count, 3))

    def hats(self, scale: Tensor) -> Tensor:
        """Weights of the knots: [batch, knots], each row sums to 1."""
        place = (torch.log(scale) - self.first).clamp(0.0, self.count - 1.0)
        return (1.0 - (place - self.places).abs()).clamp(min=0.0)

    def forward(self, quantiles: Tensor, scale: Tensor) -> Tensor:
        """[batch, 14, 3] -> the same, calibrated; still ascending and not negative."""
        factors = (self.hats(scale) @ self.factors).unsqueeze(1)
        lower, median, upper = quantiles[:, :, 0:1], quantiles[:, :, 1:2], quantiles[:, :, 2:3]
        centre = median * factors[:, :, 1:2]
        below = torch.relu(centre - (median - lower) * factors[:, :, 0:1])
        above = centre + (upper - median) * factors[:, :, 2:3]
        return torch.cat([below, centre, above], 2)


class Forecaster(nn.Module):
    """Raw fields of a window in, quantiles in units a day out: [batch, 14, 3].

    members: architecture and sizes of each network. Their quantiles are averaged, so they may be of different kinds.
    """

    def __init__(
        self, features: FeatureConfig, members: Sequence[tuple[str, Mapping[str, int]]], *, dropout: float
    ) -> None:
        super().__init__()
        self.features = WindowFeatures(features)
        channels = (self.features.history_width, self.features.future_width, self.features.static_width)
        networks: list[Network] = [NETWORKS[kind](channels, dropout=dropout, **sizes) for kind, sizes in members]
        self.networks = nn.ModuleList(networks)
        self.heads = nn.ModuleList([QuantileHead(each.width, channels[2], dropout) for each in networks])
        self.calibration: Calibration = Calibration()

    @property
    def inputs(self) -> dict[str, int | None]:
        """Input name -> values per row."""
        return self.features.config.inputs

    def members(self, fields: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Each member's quantiles / scale, not calibrated, and the scale; what the loss is computed on."""
        tokens = self.features(fields)
        pairs = zip(self.networks, self.heads, strict=True)
        return [head(network(tokens), tokens.static, tokens.base) for network, head in pairs], tokens.scale

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """float32[batch, 14, 3]."""
        members, scale = self.members(fields)
        mean = torch.stack(members, 0).mean(0) if len(members) > 1 else members[0]
        calibrated: Tensor = self.calibration(mean, scale)
        return calibrated * scale.unsqueeze(2)
