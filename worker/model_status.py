"""What a worker knows of its model's versions, for metrics, `/ready` and the other workers. Frozen values.         (pure)"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from worker.version_choice import Rule, VersionId
from worker.version_states import State

LOAD_BOUNDS_S: tuple[float, ...] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Phases of loading, seconds: a millisecond to a minute."""


class Outcome(StrEnum):
    """How an attempt to change versions ended."""

    SERVED = "served"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    LEFT = "left"


class Phase(StrEnum):
    """A step of loading a version, or `CLOSE`, the end of one."""

    CHECK = "check"
    ROOM = "room"
    LOAD = "load"
    PROVE = "prove"
    WARM = "warm"
    SHADOW = "shadow"
    HAND_OVER = "hand_over"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a shadow's forecasts differ from the serving version's over `rows` rows; see `shadow.py`. NaN: not known."""

    rows: int
    wape: float
    bias: float
    width_ratio: float
    latency_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Of the accelerator, bytes."""

    used_bytes: int
    free_bytes: int


Counts = Mapping[Phase, tuple[tuple[int, ...], float]]
"""Phase -> (how many took how long, by LOAD_BOUNDS_S; seconds in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """Everything at one moment. refused and quarantined: version -> reason. rule: which one chose the serving version."""

    states: Mapping[VersionId, State] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[VersionId, str] = field(default_factory=lambda: MappingProxyType({}))
    unreadable: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    quarantined: Mapping[VersionId, str] = field(default_factory=lambda: MappingProxyType({}))
    rule: Rule = Rule.NONE
    notes: tuple[str, ...] = ()
    outcomes: Mapping[Outcome, int] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(Outcome, 0)))
    loads: Counts = field(default_factory=lambda: MappingProxyType({}))
    shadow: Difference | None = None
    device: DeviceMemory | None = None

    def version_in(self, state: State) -> VersionId | None:
        """The version in `state` (one that only one version can be in), if there is one."""
        return next((version for version, stands in self.states.items() if stands is state), None)

    @property
    def detail(self) -> dict[str, object]:
        """What `/ready` shows."""
        return {
            "versions": by_name({version: state.value for version, state in self.states.items()}),
            "chosen_by": self.rule.value,
            "refused": {**by_name(self.refused), **self.unreadable},
            "quarantined": by_name(self.quarantined),
            "notes": list(self.notes),
        }


def by_name(values: Mapping[VersionId, str]) -> dict[str, str]:
    """`values` with the versions' names in the place of the versions; with digests, too, where two have the same name."""
    names = [version.name for version in values]
    return {
        version.name if names.count(version.name) == 1 else str(version): value
        for version, value in sorted(values.items())
    }


def counted(loads: Counts, phase: Phase, seconds: float) -> Counts:
    """`loads` with one more pass through `phase`."""
    counts, total_s = loads.get(phase, ((0,) * (len(LOAD_BOUNDS_S) + 1), 0.0))
    place = bisect_left(LOAD_BOUNDS_S, seconds)
    more = tuple(count + (i == place) for i, count in enumerate(counts))
    return MappingProxyType({**loads, phase: (more, total_s + seconds)})
