"""Forecasts gathered from a topic: the newest of each key, or of each key and date, as one array. Pure.

A forecast is kept as its bytes, so 50,000 of 14 days and 3 levels take about 27 MB on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.errors import ContractError

Unit = tuple[bytes, int | None]
"""What one forecast is kept for: its key, and its as_of if each date counts by itself."""

Layout = tuple[int, tuple[float, ...]]
"""Days, and quantile levels as float32 has them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One forecast. values: float32[levels, days] as bytes. source: partition and offset of its event."""

    as_of: int
    layout: Layout
    values: bytes
    source: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastTable:
    """Forecasts of one layout.

    keys[n]: the messages' keys. as_of: int64[n], days since 1970. levels[q]: ascending. values: float32[n, days, q].
    """

    keys: Sequence[bytes]
    as_of: NDArray[np.int64]
    levels: tuple[float, ...]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, indices: NDArray[np.intp]) -> ForecastTable:
        """The forecasts at `indices`, in that order."""
        return ForecastTable(
            keys=[self.keys[i] for i in indices],
            as_of=self.as_of[indices],
            levels=self.levels,
            values=self.values[indices],
        )


class Gathered:
    """Takes forecasts in the order of the topic and keeps the newest of each unit.

    by_date: keep one for each key and as_of; else one for each key, as a compacted topic does. `models` counts the
    forecasts taken, by model and version.
    """

    def __init__(self, *, by_date: bool) -> None:
        self._by_date = by_date
        self._layouts: dict[Layout, Layout] = {}
        self._dates: dict[bytes, set[int]] = {}
        self.rows: dict[Unit, Row] = {}
        self.models: Counter[str] = Counter()
        self.unreadable = 0

    def add(self, key: bytes, content: Mapping[str, object]) -> None:
        """Take a forecast as it was decoded. What isn't shaped like one counts as unreadable."""
        quantiles = content.get("quantiles")
        levels = content.get("quantile_levels")
        as_of = content.get("as_of")
        if not isinstance(quantiles, list) or not isinstance(levels, list) or not isinstance(as_of, int):
            self.unreadable += 1
            return
        days = len(quantiles[0]) if quantiles else 0
        if not days or len(quantiles) != len(levels) or any(len(each) != days for each in quantiles):
            self.unreadable += 1
            return
        values = np.asarray(quantiles, dtype=np.float32)
        source = (_int(content.get("source_partition")), _int(content.get("source_offset")))
        layout = (days, _as_float32(levels))
        layout = self._layouts.setdefault(layout, layout)  # one object for all: it is larger than the numbers
        self.put(key, Row(as_of=as_of, layout=layout, values=values.tobytes(), source=source))
        self.models[f"{content.get('model')} {content.get('model_version')}"] += 1

    def put(self, key: bytes, row: Row) -> None:
        """Keep `row` as the newest one of its unit."""
        if self._by_date:
            self._dates.setdefault(key, set()).add(row.as_of)
        self.rows[(key, row.as_of if self._by_date else None)] = row

    def withdraw(self, key: bytes) -> None:
        """A tombstone: none of the key's forecasts count any more."""
        if self._by_date:
            for as_of in self._dates.pop(key, ()):
                del self.rows[(key, as_of)]
        else:
            self.rows.pop((key, None), None)

    def layouts(self, units: Iterable[Unit]) -> frozenset[Layout]:
        """Of the forecasts of `units`."""
        return frozenset(self.rows[unit].layout for unit in units)

    def table(self, units: Sequence[Unit], layout: Layout) -> ForecastTable:
        """The forecasts of `units`, in that order, cut to `layout`. Precondition: each of them covers it."""
        days, levels = layout
        values = np.empty((len(units), days, len(levels)), dtype=np.float32)
        picks = {each: [each[1].index(level) for level in levels] for each in self.layouts(units)}
        for index, unit in enumerate(units):
            row = self.rows[unit]
            shape = (len(row.layout[1]), row.layout[0])
            content = np.frombuffer(row.values, dtype=np.float32).reshape(shape)
            values[index] = content[picks[row.layout], :days].T
        return ForecastTable(
            keys=[unit[0] for unit in units],
            as_of=np.array([self.rows[unit].as_of for unit in units], dtype=np.int64),
            levels=levels,
            values=values,
        )


def common_layout(layouts: Iterable[Layout]) -> Layout:
    """The days and the levels that all `layouts` have. Raises `ContractError` if they have no level in common."""
    found = sorted(set(layouts))
    if not found:
        return 1, (0.5,)
    levels = set.intersection(*(set(each) for _, each in found))
    if not levels:
        shown = "; ".join(str([f"{level:g}" for level in each]) for _, each in found)
        raise ContractError(f"quantile levels: got {shown}, expected at least one that all forecasts have")
    return min(days for days, _ in found), tuple(sorted(levels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which units of two sides belong together: same key, same as_of.

    only_before, only_after: keys (or keys and dates) that the other side doesn't have. other_date: keys that both have, for
    different dates.
    """

    units: Sequence[Unit]
    only_before: int
    only_after: int
    other_date: int


def matched(before: Gathered, after: Gathered) -> Matching:
    """Units of both sides, sorted, so that the result doesn't depend on the order in which partitions were read."""
    both = before.rows.keys() & after.rows.keys()
    same = sorted(
        (unit for unit in both if before.rows[unit].as_of == after.rows[unit].as_of),
        key=lambda unit: (unit[0], unit[1] or 0),
    )
    return Matching(
        units=same,
        only_before=len(before.rows) - len(both),
        only_after=len(after.rows) - len(both),
        other_date=len(both) - len(same),
    )


def _as_float32(levels: Sequence[object]) -> tuple[float, ...]:
    return tuple(np.asarray(levels, dtype=np.float32).tolist())


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1
