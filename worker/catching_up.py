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
        self._before: tuple[float, int, int] | None = None  # the last look that wasn't behind: time and counts
        self._is_behind = False
        self._oldest_s = 0.0

    def look(self, oldest_s: float, records: int, superseded: int, now_s: float) -> CaughtUp | None:
        """`oldest_s` is that age now, the others what was counted so far. Tells once, when it is over."""
        since_s, records_before, superseded_before = self._before or (now_s, 0, 0)
        if self._is_behind and oldest_s > CAUGHT_UP_S:
            self._oldest_s = max(self._oldest_s, oldest_s)
            return None
        if not self._is_behind and oldest_s >= BEHIND_S:
            self._is_behind, self._oldest_s, self._before = True, oldest_s, (since_s, records_before, superseded_before)
            return None
        was_behind, self._is_behind = self._is_behind, False
        self._before = (now_s, records, superseded)
        if not was_behind:
            return None
        return CaughtUp(
            records=records - records_before,
            superseded=superseded - superseded_before,
            seconds=now_s - since_s,
            oldest_s=self._oldest_s,
        )
