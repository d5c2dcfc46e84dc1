"""Raw units in, normalised tokens out: scaling, log transform and calendar, all of it part of the exported graph.

Only arithmetic that TensorRT 8.6 to 11 parse: no modulo, no data-dependent indexing. Weekdays are counted in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from demo.series import HISTORY_DAYS, HORIZON_DAYS

HISTORY_NEUTRAL: Final = {
    "sales": 0.0,
    "promo": 0.0,
    "discount": 1.0,
    "holiday": 0.0,
    "temperature": 15.0,
    "in_stock": 1.0,
}
"""Field -> the value that stands for 'nothing special', as in sku_features.avsc."""

LONG_MEMORY: Final = {"weekday_mean": 7}
"""Field about the time before the window -> its values per row. All zeros stand for 'unknown'."""

FUTURE_FIELDS: Final = ("promo", "discount", "holiday", "temperature")

_HOLIDAY_REACH_DAYS: Final = 3
_YEAR_DAYS: Final = 365.2425
_MONDAY: Final = 7 * 100_000 + 3
"""Added to days since 1970 it counts from a Monday long ago (1970-01-01 was a Thursday), so that whole weeks are cut off by a
division that truncates."""
_IN_STOCK_SLOPE: Final = 4.0  # a day counts fully from a quarter of its hours in stock
_WEEKDAY_PRIOR_DAYS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Which covariates a model takes, and how it normalises.

    covariates: subset of promo, discount, holiday, temperature (history and future) and in_stock (history only).
    scale_floor: units a day added to the window's mean, so that series without sales have a scale.
    yearly_harmonics: pairs of sine and cosine of the day of the year; 0 for data sets shorter than two years.
    """

    covariates: tuple[str, ...]
    scale_floor: float
    yearly_harmonics: int

    @property
    def inputs(self) -> dict[str, int | None]:
        """Input name -> values per row, None for a scalar; in the order of the exported graph."""
        history = {"sales": HISTORY_DAYS} | {name: LONG_MEMORY.get(name, HISTORY_DAYS) for name in self.covariates}
        future = {f"{name}_next": HORIZON_DAYS for name in FUTURE_FIELDS if name in self.covariates}
        return history | future | {"as_of": None}


class Tokens(NamedTuple):
    """What a network sees. history [batch, 30, h], future [batch, 14, f], static [batch, s]; scale [batch, 1] in units a day;
    base [batch, 14]: the same weekday's mean / scale.
    """

    history: Tensor
    future: Tensor
    static: Tensor
    scale: Tensor
    base: Tensor


class WindowFeatures(nn.Module):
    """Turns the raw fields of a window into tokens. Holds constants only, nothing to learn."""

    same_weekday: Tensor
    weekdays: Tensor
    past_offsets: Tensor
    next_offsets: Tensor
    angles: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("same_weekday", _same_weekday(), persistent=False)
        self.register_buffer("weekdays", torch.arange(7, dtype=torch.float32), persistent=False)
        self.register_buffer("past_offsets", torch.arange(1 - HISTORY_DAYS, 1, dtype=torch.int32), persistent=False)
        self.register_buffer("next_offsets", torch.arange(1, HORIZON_DAYS + 1, dtype=torch.int32), persistent=False)
        angles = 2 * math.pi * torch.arange(1, config.yearly_harmonics + 1, dtype=torch.float32)
        self.register_buffer("angles", angles, persistent=False)
        widths = self._widths()
        self.history_width, self.future_width, self.static_width = widths

    def forward(self, fields: dict[str, Tensor]) -> Tokens:
        """Fields by input name -> tokens, all float32."""
        sales = fields["sales"]
        stock = fields.get("in_stock", torch.ones_like(sales))
        counted = (stock * _IN_STOCK_SLOPE).clamp(0.0, 1.0)
        ordinary = counted * self._ordinary(fields)
        scale = (sales * ordinary).sum(1, keepdim=True) / ordinary.sum(1, keepdim=True).clamp(min=1.0)
        scale = scale + self.config.scale_floor
        ratio = sales / scale
        base = (ratio * ordinary) @ self.same_weekday + _WEEKDAY_PRIOR_DAYS
        base = base / (ordinary @ self.same_weekday + _WEEKDAY_PRIOR_DAYS)
        holiday_past, holiday_next = self._holidays(fields)
        memory_past, memory_next, memory_static = self._long_memory(fields, scale)
        history = [
            *memory_past,
            self._token(counted, ratio.clamp(max=8.0) * counted, torch.log1p(ratio) * counted),
            *self._covariates(fields, ""),
            holiday_past,
            self._calendar(fields["as_of"], self.past_offsets),
        ]
        counted_week = _last(counted, 7)
        last_week = _last(sales, 7) / scale * counted_week
        future = [
            *memory_next,
            self._token(base, torch.log(base + 0.02), torch.cat([last_week] * 2, 1), torch.cat([counted_week] * 2, 1)),
            *self._covariates(fields, "_next"),
            holiday_next,
            self._calendar(fields["as_of"], self.next_offsets),
        ]
        static = torch.cat([self._static(fields, ratio, counted, scale), *memory_static], 1)
        return Tokens(torch.cat(history, 2), torch.cat(future, 2), static, scale, base)

    def _long_memory(self, fields: dict[str, Tensor], scale: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What is known of the time before the window, as tokens of the history, of the future, and static."""
        past: list[Tensor] = []
        ahead: list[Tensor] = []
        static: list[Tensor] = []
        if "weekday_mean" in self.config.covariates:
            mean = fields["weekday_mean"] / scale
            level = mean.mean(1, keepdim=True)
            known = (level * 1000.0).clamp(0.0, 1.0)
            profile = (mean / level.clamp(min=1e-3)).clamp(max=8.0)
            for tokens, offsets in ((past, self.past_offsets), (ahead, self.next_offsets)):
                weekday = self._weekday(_days(fields["as_of"], offsets))
                share = (weekday * profile.unsqueeze(1)).sum(2)
                tokens.append(self._token(share, torch.log(share + 0.02) * known))
            static += [known, torch.log(level + 0.02) * known]
        return past, ahead, static

    def neutral(self) -> dict[str, float]:
        """Covariate -> its neutral value, of those that this model takes."""
        return {name: HISTORY_NEUTRAL.get(name, 0.0) for name in self.config.covariates}

    def _ordinary(self, fields: dict[str, Tensor]) -> Tensor:
        """1 on days that say what an ordinary day sells, 0 on public holidays."""
        if "holiday" not in self.config.covariates:
            return torch.ones_like(fields["sales"])
        return 1.0 - (2.0 * fields["holiday"] - 1.0).clamp(0.0, 1.0)

    def _holidays(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The holidays around each day, before and after it: [batch, days, 7] for history and future."""
        past = fields.get("holiday", torch.zeros_like(fields["sales"]))
        ahead = fields.get("holiday_next", torch.zeros_like(fields["sales"].narrow(1, 0, HORIZON_DAYS)))
        edge = torch.zeros_like(past.narrow(1, 0, _HOLIDAY_REACH_DAYS))
        line = torch.cat([edge, past, ahead, edge], 1)
        days = HISTORY_DAYS + HORIZON_DAYS
        around = torch.stack([line.narrow(1, k, days) for k in range(2 * _HOLIDAY_REACH_DAYS + 1)], 2)
        return around.narrow(1, 0, HISTORY_DAYS), around.narrow(1, HISTORY_DAYS, HORIZON_DAYS)

    def _covariates(self, fields: dict[str, Tensor], suffix: str) -> list[Tensor]:
        scaled = {"promo": (0.0, 1.0), "discount": (1.0, 4.0), "temperature": (15.0, 0.1)}
        found = [
            ((fields[f"{name}{suffix}"] - centre) * factor).unsqueeze(2)
            for name, (centre, factor) in scaled.items()
            if name in self.config.covariates
        ]
        if suffix == "" and "in_stock" in self.config.covariates:
            found.append(fields["in_stock"].unsqueeze(2))
        return found

    def _calendar(self, as_of: Tensor, offsets: Tensor) -> Tensor:
        """Weekday one-hot and the year's harmonics: [batch, days, 7 + 2 * harmonics]."""
        day = _days(as_of, offsets)
        parts = [self._weekday(day)]
        if self.config.yearly_harmonics:
            year = day.float() / _YEAR_DAYS
            phase = (year - torch.floor(year)).unsqueeze(2) * self.angles
            parts += [torch.sin(phase), torch.cos(phase)]
        return torch.cat(parts, 2)

    def _weekday(self, day: Tensor) -> Tensor:
        """One-hot: int32[batch, days] -> [batch, days, 7].

        In integers, which no engine computes in half precision: float16 knows today only to 16 days.
        """
        since = day + _MONDAY
        weekday = (since - 7 * torch.div(since, 7, rounding_mode="trunc")).float()
        return (1.0 - (weekday.unsqueeze(2) - self.weekdays).abs()).clamp(min=0.0)

    def _static(self, fields: dict[str, Tensor], ratio: Tensor, counted: Tensor, scale: Tensor) -> Tensor:
        def mean(values: Tensor, weights: Tensor) -> Tensor:
            return (values * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1.0)

        level = mean(ratio, counted)
        spread = torch.sqrt(mean((ratio - level) ** 2, counted) + 1e-4)
        parts = [torch.log(scale), spread.clamp(max=4.0), counted.mean(1, keepdim=True)]
        parts += [torch.log(mean(_last(ratio, d), _last(counted, d)) + 0.05) for d in (3, 7, 14)]
        parts.append(mean((1.0 - 20.0 * ratio).clamp(min=0.0), counted))
        if "promo" in self.config.covariates:
            promo = counted * fields["promo"]
            uplift = ((ratio * promo).sum(1, keepdim=True) + level) / (promo.sum(1, keepdim=True) + 1.0)
            parts += [torch.log(uplift + 0.05), fields["promo"].mean(1, keepdim=True)]
        if "discount" in self.config.covariates:
            parts.append(1.0 - fields["discount"].mean(1, keepdim=True))
        return torch.cat(parts, 1)

    @staticmethod
    def _token(*channels: Tensor) -> Tensor:
        return torch.stack(channels, 2)

    def _widths(self) -> tuple[int, int, int]:
        fields = {
            name: torch.zeros(1) if width is None else torch.ones(1, width)
            for name, width in self.config.inputs.items()
        }
        tokens = self.forward(fields)
        return tokens.history.shape[2], tokens.future.shape[2], tokens.static.shape[1]


def _days(as_of: Tensor, offsets: Tensor) -> Tensor:
    """Days since 1970 of each day, int32: [batch] and [days] -> [batch, days]."""
    return as_of.to(torch.int32).unsqueeze(1) + offsets


def _last(values: Tensor, days: int) -> Tensor:
    """The last `days` of the history: [batch, 30] -> [batch, days].

    By `narrow`, whose result is `days` wide whoever asks: a slice from -days has a width that a compiler with symbolic shapes
    only knows as an expression, and what is stacked on it must be known to be as wide.
    """
    return values.narrow(1, HISTORY_DAYS - days, days)


def _same_weekday() -> Tensor:
    """[30, 14]: 1 where a day of the history has the weekday of a day of the horizon."""
    past = torch.arange(1 - HISTORY_DAYS, 1).unsqueeze(1)
    ahead = torch.arange(1, HORIZON_DAYS + 1).unsqueeze(0)
    return ((ahead - past) % 7 == 0).float()
