"""Windows of a data set as batches of tensors: any series at any day, gathered on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.series import HISTORY_DAYS, HORIZON_DAYS, FloatArray, SeriesSet
from demo.training.features import HISTORY_NEUTRAL

COUNTED_STOCK_SHARE: Final = 0.25
"""Days on which the SKU was on the shelf for a smaller share of the hours are censored: they don't enter the loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Raw fields by input name; sales to come float32[batch, 14]; counted float32[batch, 14]: 1 where they enter the loss."""

    fields: dict[str, Tensor]
    actual: Tensor
    counted: Tensor


class Windows:
    """The series of one data set on one device. Days are indices into its dates, from 0.

    Days before the first one read as out of stock, so windows may begin earlier than the data.
    """

    def __init__(self, data: SeriesSet, inputs: dict[str, int | None], device: torch.device) -> None:
        self.data, self.inputs, self.device = data, inputs, device
        self.first_day = int(data.dates[0])
        self.days = len(data.dates)
        self.series = len(data)
        names = sorted(
            {name.removesuffix("_next") for name, width in inputs.items() if width is not None} | {"in_stock"}
        )
        self._grids = {name: self._grid(name) for name in names if name in HISTORY_NEUTRAL}
        if "weekday_mean" in inputs:
            self._weekday_means = torch.from_numpy(weekday_means(data.sales)).to(device)

    def _grid(self, name: str) -> Tensor:
        """float32[series, history + days + horizon], neutral outside the data."""
        known = getattr(self.data, name)
        outside = 0.0 if name == "in_stock" else HISTORY_NEUTRAL[name]
        shape = (self.series, HISTORY_DAYS + self.days + HORIZON_DAYS)
        grid = np.full(shape, outside, dtype=np.float32)
        inside = grid[:, HISTORY_DAYS : HISTORY_DAYS + self.days]
        inside[:] = HISTORY_NEUTRAL[name] if known is None else known
        return torch.from_numpy(grid).to(self.device)

    def batch(self, series: Tensor, as_of: Tensor, end: int) -> Batch:
        """Windows of `series` (int64[batch]) whose history ends on day `as_of` (int64[batch], inclusive).

        Days from `end` on are not known: they don't count.
        """
        # The grids begin 30 days before the data.
        past = as_of.unsqueeze(1) + torch.arange(1, HISTORY_DAYS + 1, device=self.device)
        ahead = as_of.unsqueeze(1) + torch.arange(1, HORIZON_DAYS + 1, device=self.device)
        rows = series.unsqueeze(1)
        fields: dict[str, Tensor] = {}
        for name in self.inputs:
            if name == "as_of":
                fields[name] = (as_of + self.first_day).float()
            elif name == "weekday_mean":
                fields[name] = self._weekday_mean(series, as_of)
            else:
                columns = ahead + HISTORY_DAYS if name.endswith("_next") else past
                fields[name] = self._grids[name.removesuffix("_next")][rows, columns]
        actual = self._grids["sales"][rows, ahead + HISTORY_DAYS]
        stocked = self._grids["in_stock"][rows, ahead + HISTORY_DAYS] >= COUNTED_STOCK_SHARE
        return Batch(fields=fields, actual=actual, counted=(stocked & (ahead < end)).float())

    def _weekday_mean(self, series: Tensor, as_of: Tensor) -> Tensor:
        """Monday first: float32[batch, 7]."""
        monday = as_of - (as_of + self.first_day + 3) % 7
        days = monday.unsqueeze(1) + torch.arange(7, device=self.device)
        days = torch.where(days > as_of.unsqueeze(1), days - 7, days)
        return self._weekday_means[series.unsqueeze(1), days.clamp(min=0)]

    def origin(self, as_of: int) -> Batch:
        """All series at one day, whose horizon must lie in the data."""
        if not 0 <= as_of < self.days - HORIZON_DAYS:
            raise ValueError(
                f"day {as_of}: its {HORIZON_DAYS} days ahead leave the {self.days} days of {self.data.name}"
            )
        series = torch.arange(self.series, device=self.device)
        return self.batch(series, torch.full_like(series, as_of), self.days)


def epoch_order(series: int, origins: NDArray[np.int64], generator: torch.Generator) -> Tensor:
    """A random order of all windows: int64[series * origins, 2] of series and origin, on the CPU."""
    order = torch.randperm(series * len(origins), generator=generator)
    days = torch.from_numpy(origins)
    return torch.stack([order % series, days[order // series]], 1)


def weekday_means(sales: FloatArray, weeks: int = 52, least: int = 8) -> FloatArray:
    """Mean of each day's weekday over the `weeks` up to that day; 0 with fewer than `least` of them. float32[series, days]."""
    total = np.zeros_like(sales, dtype=np.float64)
    count = np.zeros(sales.shape[1])
    for week in range(weeks):
        shift = 7 * week
        if shift >= sales.shape[1]:
            break
        total[:, shift:] += sales[:, : sales.shape[1] - shift]
        count[shift:] += 1
    return np.where(count >= least, total / count, 0.0).astype(np.float32)
