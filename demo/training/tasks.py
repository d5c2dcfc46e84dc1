"""The two data sets as training tasks: which days are test, which validation, and the recipe of each architecture.

Everything here was chosen on validation origins before the test days (docs/accuracy.md lists the trials).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from demo import bakery, freshretailnet
from demo.series import HORIZON_DAYS, SeriesSet
from demo.training.features import FeatureConfig
from demo.training.fit import FitConfig
from demo.training.model import Forecaster

SIZES: Final[Mapping[str, Mapping[str, int]]] = {
    "lstm": {"width": 96},
    "transformer": {"width": 64, "layers": 2},
    "tsmixer": {"width": 64, "layers": 2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a model consists of and how it is trained.

    members: number of networks of each architecture; their quantiles are averaged.
    """

    members: Mapping[str, int]
    fit: FitConfig
    dropout: float

    def build(self, features: FeatureConfig) -> Forecaster:
        """An untrained forecaster. Its weights come from torch's global generator."""
        members = [(kind, SIZES[kind]) for kind, count in self.members.items() for _ in range(count)]
        return Forecaster(features, members, dropout=self.dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A data set, its split, and its recipes by name; the first one is the primary, the second its backup.

    test_days: the last days of the data, on which nothing is chosen. origins: test origins, a week apart, the first one on the
    day before the test days. The validation origins lie the same way in the `validation_days` before the test days.
    """

    name: str
    load: Callable[[], SeriesSet]
    test_days: int
    origins: int
    features: FeatureConfig
    recipes: Mapping[str, Recipe]
    validation_days: int = field(default=0)

    def test_start(self, data: SeriesSet) -> int:
        """Index of the first test day."""
        return len(data.dates) - self.test_days

    def validation_start(self, data: SeriesSet) -> int:
        """Index of the first validation day; models that choose something are trained on the days before it."""
        return self.test_start(data) - (self.validation_days or self.test_days)

    def origins_from(self, start: int) -> list[int]:
        """Indices of the last history day of each origin, for a period that begins on day `start`."""
        return [start - 1 + 7 * week for week in range(self.origins)]


_FRESH_FIT: Final = FitConfig(epochs=3, batch=4096, learning_rate=1.5e-3)

FRESHRETAILNET: Final = Task(
    name="freshretailnet",
    load=freshretailnet.load,
    test_days=HORIZON_DAYS,
    origins=1,
    features=FeatureConfig(
        covariates=("promo", "discount", "holiday", "temperature", "in_stock"), scale_floor=0.05, yearly_harmonics=0
    ),
    recipes={
        # Nearly as good as the LSTM, and its FP16 plan takes half the time or less (docs/accuracy.md, "Which one serves").
        "transformer": Recipe(members={"transformer": 2}, fit=_FRESH_FIT, dropout=0.2),
        # One pass over the windows is best: the 76 days repeat themselves, a second pass learns them by heart.
        "lstm": Recipe(
            members={"lstm": 3},
            fit=FitConfig(epochs=1, batch=4096, learning_rate=2e-3),
            dropout=0.2,
        ),
        "tsmixer": Recipe(members={"tsmixer": 2}, fit=_FRESH_FIT, dropout=0.2),
    },
)

_BAKERY_FIT: Final = FitConfig(epochs=8, batch=512, learning_rate=1e-3, first_origin=29, level_noise=0.0)

BAKERY: Final = Task(
    name="bakery",
    load=bakery.load,
    test_days=56,
    origins=7,
    features=FeatureConfig(
        covariates=("promo", "holiday", "temperature", "weekday_mean"), scale_floor=0.5, yearly_harmonics=0
    ),
    recipes={
        "transformer": Recipe(members={"transformer": 3}, fit=_BAKERY_FIT, dropout=0.1),
        "tsmixer": Recipe(members={"tsmixer": 3}, fit=_BAKERY_FIT, dropout=0.1),
        "lstm": Recipe(members={"lstm": 3}, fit=_BAKERY_FIT, dropout=0.1),
    },
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (FRESHRETAILNET, BAKERY)}
