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


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """An architecture, its sizes, and how it is trained."""

    architecture: str
    fit: FitConfig
    members: int
    dropout: float
    sizes: Mapping[str, int]

    def build(self, features: FeatureConfig) -> Forecaster:
        """An untrained forecaster. Its weights come from torch's global generator."""
        return Forecaster(features, self.architecture, members=self.members, dropout=self.dropout, **self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A data set, its split, and its recipes by architecture; the first one is the primary, the second its backup.

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
        # One pass over the windows is best: the 76 days repeat themselves, a second pass learns them by heart.
        "lstm": Recipe(
            architecture="lstm", fit=FitConfig(epochs=1, batch=4096, learning_rate=2e-3), members=3, dropout=0.2, sizes={"width": 96}
        ),
        "tsmixer": Recipe(
            architecture="tsmixer", fit=_FRESH_FIT, members=2, dropout=0.2, sizes={"width": 64, "layers": 2}
        ),
        "transformer": Recipe(
            architecture="transformer", fit=_FRESH_FIT, members=2, dropout=0.2, sizes={"width": 64, "layers": 2}
        ),
    },
)

_BAKERY_FIT: Final = FitConfig(epochs=8, batch=512, learning_rate=1e-3, first_origin=29, level_noise=0.0)

BAKERY: Final = Task(
    name="bakery",
    load=bakery.load,
    test_days=56,
    origins=7,
    features=FeatureConfig(covariates=("promo", "holiday", "temperature", "weekday_mean"), scale_floor=0.5, yearly_harmonics=3),
    recipes={
        "transformer": Recipe(architecture="transformer", fit=_BAKERY_FIT, members=3, dropout=0.1, sizes={"width": 64, "layers": 2}),
        "tsmixer": Recipe(architecture="tsmixer", fit=_BAKERY_FIT, members=3, dropout=0.1, sizes={"width": 64, "layers": 2}),
        "lstm": Recipe(architecture="lstm", fit=_BAKERY_FIT, members=3, dropout=0.1, sizes={"width": 96}),
    },
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in (FRESHRETAILNET, BAKERY)}
