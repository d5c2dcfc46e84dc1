"""Time as a value: an absolute deadline on an injected monotonic clock, shared by every blocking call of one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds on a monotonic clock. Its zero means nothing."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment `at_s` on `clock`. Calls that block take what is left of it, so that together they keep to one budget."""

    at_s: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The moment that lies `seconds` from now."""
        return cls(clock() + seconds, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock())

    @property
    def expired(self) -> bool:
        """True once nothing is left."""
        return self.remaining_s <= 0.0
