"""Whether calibration rows show what the model will meet: days, weekends, special days, small and large volumes.   (pure)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from engine_build.onnx_run import Columns, FloatArray

LEAST_DAYS: Final = 7
LEAST_ROWS: Final = 500
LEAST_GROUP_ROWS: Final = 25
VOLUME_CLASSES: Final = 4

_SATURDAY: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the rows hold. consecutive_days: length of the longest run of days; volume_rows: rows per quartile of mean sales,
    the smallest first. None where the events have no such field.
    """

    rows: int
    days: int | None
    consecutive_days: int | None
    weekend_rows: int | None
    special_rows: int | None
    volume_rows: tuple[int, ...] | None

    def missing(self) -> tuple[str, ...]:
        """Everything that is too thin, one sentence each; empty if nothing is."""
        checks = (
            ("rows", self.rows, LEAST_ROWS),
            ("consecutive days (as_of)", self.consecutive_days, LEAST_DAYS),
            ("rows on weekends", self.weekend_rows, LEAST_GROUP_ROWS),
            ("rows with a holiday or promotion", self.special_rows, LEAST_GROUP_ROWS),
            *(
                (f"rows in volume class {n}", each, LEAST_GROUP_ROWS)
                for n, each in enumerate(self.volume_rows or (0,), 1)
            ),
        )
        return tuple(
            f"{name}: got {'no such field' if got is None else f'{got:,}'}, expected {least} or more"
            for name, got, least in checks
            if got is None or got < least
        )

    def table(self) -> Table:
        """As it is printed."""
        table = Table("calibration", "got", "expected", title="Coverage of the calibration rows")
        volume = "-" if self.volume_rows is None else " / ".join(f"{each:,}" for each in self.volume_rows)
        for name, got, expected in (
            ("rows", self.rows, f">= {LEAST_ROWS}"),
            ("days", self.days, ""),
            ("consecutive days", self.consecutive_days, f">= {LEAST_DAYS}"),
            ("weekend rows", self.weekend_rows, f">= {LEAST_GROUP_ROWS}"),
            ("holiday or promotion rows", self.special_rows, f">= {LEAST_GROUP_ROWS}"),
        ):
            table.add_row(name, "-" if got is None else f"{got:,}", expected)
        table.add_row("rows by quartile of mean sales", volume, f">= {LEAST_GROUP_ROWS} each")
        return table


def coverage_of(columns: Columns, classes: NDArray[np.int64] | None, special: NDArray[np.bool_] | None) -> Coverage:
    """Coverage of rows. classes: int64[rows], the volume class of each, from 0; special: bool[rows]."""
    rows = len(next(iter(columns.values())))
    days = columns.get("as_of")
    weekend = None if days is None else int((weekdays(days) >= _SATURDAY).sum())
    return Coverage(
        rows=rows,
        days=None if days is None else len(np.unique(days)),
        consecutive_days=None if days is None else longest_run(np.unique(days).astype(np.int64).tolist()),
        weekend_rows=weekend,
        special_rows=None if special is None else int(special.sum()),
        volume_rows=None if classes is None else tuple(np.bincount(classes, minlength=VOLUME_CLASSES).tolist()),
    )


def longest_run(days: Sequence[int]) -> int:
    """Length of the longest run of consecutive days in ascending `days`."""
    longest = run = 0
    last: int | None = None
    for day in days:
        run = run + 1 if last is not None and day == last + 1 else 1
        longest, last = max(longest, run), day
    return longest


def weekdays(days: FloatArray) -> NDArray[np.int64]:
    """0 = Monday of days since 1970-01-01, a Thursday."""
    return (days.astype(np.int64) + 3) % 7


def volume_classes(sales: FloatArray) -> NDArray[np.int64]:
    """The quartile of each row's mean sales among all rows, 0 to 3: int64[rows]. Equal means are in one class."""
    mean = sales.reshape(len(sales), -1).mean(axis=1, dtype=np.float64)
    edges = np.quantile(mean, np.arange(1, VOLUME_CLASSES) / VOLUME_CLASSES)
    classes: NDArray[np.int64] = np.searchsorted(edges, mean, side="left").astype(np.int64)
    return classes
