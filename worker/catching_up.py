"""When the worker was behind and has caught up, and what it skipped on the way.                                  (pure)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BEHIND_S: Final = 60.0
"""An oldest unserved event of this age means: behind."""
CAUGHT_UP_S: Final = 10.0
"""Below this age again: caught up. Less than `BEHIND_S`, so that it doesn't flutter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """One time of being behind: records read, events superseded by newer ones of their keys, and how long it took."""

    records: int
    superseded: int
    seconds: float
    oldest_s: float


class CatchingUp:
    """Watches the age of the oldest unserved event."""

    def __init__(self) -> None:
        self._began: tuple[float, int, int] | None = None
        self._oldest_s = 0.0

    def look(self, oldest_s: float, records: int, superseded: int, now_s: float) -> CaughtUp | None:
        """`oldest_s` is that age now, the others what was counted so far. Tells once, when it is over."""
        if self._began is None:
            if oldest_s >= BEHIND_S:
                self._began, self._oldest_s = (now_s, records, superseded), oldest_s
            return None
        self._oldest_s = max(self._oldest_s, oldest_s)
        if oldest_s > CAUGHT_UP_S:
            return None
        (since_s, records_before, superseded_before), self._began = self._began, None
        return CaughtUp(
            records=records - records_before,
            superseded=superseded - superseded_before,
            seconds=now_s - since_s,
            oldest_s=self._oldest_s,
        )
