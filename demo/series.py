"""Daily sales series with their covariates: the one shape that every data set of the demo is brought into.

Pure numpy. Raw units throughout; a covariate that a data set doesn't have is None and is left out of its events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

HISTORY_DAYS: Final = 30
HORIZON_DAYS: Final = 14
COVARIATES: Final = ("promo", "discount", "holiday", "temperature")
PAST_COVARIATES: Final = ("in_stock", "weekday_mean")
"""What is known of the past only."""

_YEAR_WEEKS: Final = 52
_LEAST_WEEKS: Final = 8

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesSet:
    """Equally long daily series, one per product and store.

    sku_ids, store_ids: one per series. dates: int32[days], days since 1970-01-01, without gaps.
    sales: float32[series, days], units per day; finite and not negative.
    promo, discount, holiday, temperature: float32[series, days], meaning as in `sku_features.avsc`; None if unknown.
    in_stock: float32[series, days], the share of the opening hours with stock; below 1 sales are censored. None if unknown.
    long_memory: whether events carry the weekdays' means over the last year. The arrays are shared: don't write to them.
    Raises `ValueError` naming the field whose shape, dtype or values don't fit.
    """

    name: str
    sku_ids: tuple[str, ...]
    store_ids: tuple[str, ...]
    dates: NDArray[np.int32]
    sales: FloatArray
    promo: FloatArray | None = None
    discount: FloatArray | None = None
    holiday: FloatArray | None = None
    temperature: FloatArray | None = None
    in_stock: FloatArray | None = None
    long_memory: bool = False

    def __post_init__(self) -> None:
        shape = (len(self.sku_ids), len(self.dates))
        if len(self.store_ids) != len(self.sku_ids):
            raise ValueError(f"{self.name}: {len(self.store_ids)} store_ids for {len(self.sku_ids)} sku_ids")
        if np.any(np.diff(self.dates) != 1):
            raise ValueError(f"{self.name}: dates have gaps or run backwards; expected one entry for every day")
        for field, values in {"sales": self.sales, **self.covariates()}.items():
            if values.shape != shape or values.dtype != np.float32:
                raise ValueError(f"{self.name}.{field}: got {values.dtype}{values.shape}, expected float32{shape}")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{self.name}.{field}: holds values that aren't finite; fill or drop them when loading"
                )
        if self.in_stock is not None and self.in_stock.shape != shape:
            raise ValueError(f"{self.name}.in_stock: got shape {self.in_stock.shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.sku_ids)

    def covariates(self) -> dict[str, FloatArray]:
        """The covariates that this data set has: name -> float32[series, days]."""
        found = {name: getattr(self, name) for name in COVARIATES}
        return {name: values for name, values in found.items() if values is not None}

    def as_of_dates(self, days: int) -> list[int]:
        """The last `days` days that have a full history before them and a full horizon of known sales after them.

        Fewer if the data are too short. Days since 1970-01-01, ascending.
        """
        complete = self.dates[HISTORY_DAYS - 1 : len(self.dates) - HORIZON_DAYS]
        return [int(day) for day in complete[max(len(complete) - days, 0) :]]

    def windows(self, as_of: int) -> Mapping[str, FloatArray]:
        """The features of one event per series: Avro field -> float32[series, 30, 14 or 7], mostly views into the series.

        Raises `ValueError` unless `as_of` has 30 days of history and 14 days after it.
        """
        past, future = self._spans(as_of)
        features = {"sales": self.sales[:, past]}
        features |= {name: values[:, past] for name, values in self.covariates().items()}
        features |= {f"{name}_next": values[:, future] for name, values in self.covariates().items()}
        if self.in_stock is not None:
            features["in_stock"] = self.in_stock[:, past]
        if self.long_memory:
            features["weekday_mean"] = weekday_mean(self.sales[:, : past.stop], as_of)
        return features

    def optional_fields(self) -> tuple[str, ...]:
        """The covariates that this data set's events carry, known ahead or of the past only."""
        past = {"in_stock": self.in_stock is not None, "weekday_mean": self.long_memory}
        return (*self.covariates(), *(name for name in PAST_COVARIATES if past[name]))

    def actuals(self, as_of: int) -> FloatArray:
        """What was sold on the 14 days after `as_of`: float32[series, 14], a view."""
        return self.sales[:, self._spans(as_of)[1]]

    def select(self, indices: NDArray[np.intp]) -> SeriesSet:
        """The series at `indices`, in that order."""
        kept = {name: values[indices] for name, values in self.covariates().items()}
        return SeriesSet(
            name=self.name,
            sku_ids=tuple(self.sku_ids[i] for i in indices),
            store_ids=tuple(self.store_ids[i] for i in indices),
            dates=self.dates,
            sales=self.sales[indices],
            in_stock=None if self.in_stock is None else self.in_stock[indices],
            long_memory=self.long_memory,
            **kept,
        )

    def _spans(self, as_of: int) -> tuple[slice, slice]:
        end = as_of - int(self.dates[0]) + 1
        if end < HISTORY_DAYS or end + HORIZON_DAYS > len(self.dates):
            raise ValueError(
                f"as_of {as_of} of {self.name}: needs {HISTORY_DAYS} days up to it and {HORIZON_DAYS} after it; "
                f"the data run from day {self.dates[0]} to day {self.dates[-1]}"
            )
        return slice(end - HISTORY_DAYS, end), slice(end, end + HORIZON_DAYS)


def weekdays(dates: NDArray[np.int32]) -> NDArray[np.int32]:
    """Weekday of each day since 1970-01-01 (a Thursday): 0 = Monday … 6 = Sunday."""
    return (dates + 3) % 7


def weekday_mean(sales: FloatArray, as_of: int) -> FloatArray:
    """Mean of each weekday over the last 52 weeks of `sales`, which end on `as_of`: float32[series, 7], Monday first.

    Of fewer weeks if there are fewer; all 0, which stands for unknown, if there are fewer than eight.
    """
    weeks = min(sales.shape[1] // 7, _YEAR_WEEKS)
    if weeks < _LEAST_WEEKS:
        return np.zeros((len(sales), 7), dtype=np.float32)
    means = sales[:, sales.shape[1] - 7 * weeks :].reshape(len(sales), weeks, 7).mean(axis=1, dtype=np.float64)
    # The last column is the weekday of as_of (1970-01-01 was a Thursday, 3); it moves to that weekday's place.
    monday_first: FloatArray = np.roll(means, (as_of + 3) % 7 + 1, axis=1).astype(np.float32)
    return monday_first
