"""Which committed model forecasts which data set in the demo, and on which days it may be judged. (pure)

A model may only be judged on days that it wasn't trained on, and on which nothing about it was chosen. How that was
kept is told in docs/accuracy.md; `demo/training/tasks.py` has the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from demo.series import SeriesSet

_MODELS: Final = Path(__file__).resolve().parent.parent / "models"
_EPOCH: Final = date(1970, 1, 1)


class DaysError(ValueError):
    """More days were asked for than the model may be judged on. The message says how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceModel:
    """A trained model. folder: of model.onnx and card.json. trained_until: the last day that its weights have seen."""

    folder: Path
    trained_until: date

    def judged_dates(self, series: SeriesSet) -> list[int]:
        """Days on which it may forecast and be judged: all 14 days of the horizon lie after its training and are known.

        Days since 1970-01-01, ascending; empty if the data end too early.
        """
        first = (self.trained_until - _EPOCH).days
        return [day for day in series.as_of_dates(len(series.dates)) if day >= first]

    def played_dates(self, series: SeriesSet, days: int | None) -> list[int]:
        """The last `days` of `judged_dates`, all without a number. Raises `DaysError` if there aren't that many, or none."""
        dates = self.judged_dates(series)
        if not dates or (days is not None and days > len(dates)):
            raise DaysError(
                f"days to play: got {'all' if days is None else days}, but {series.name} has {len(dates)} days that "
                f"{self.folder.name} may be judged on: it was trained on the days up to {self.trained_until}; ask for fewer"
            )
        return dates if days is None else dates[len(dates) - days :]


REFERENCE_MODELS: Final[Mapping[str, ReferenceModel]] = {
    "bakery": ReferenceModel(folder=_MODELS / "bakery-transformer", trained_until=date(2019, 3, 5)),
    "freshretailnet": ReferenceModel(folder=_MODELS / "freshretailnet-transformer", trained_until=date(2024, 5, 28)),
}
