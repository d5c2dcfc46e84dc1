"""Stops a worker that would drain a topic into the dead letters. Pure.

One bad producer, schema or setting can make every record unreadable. Rejecting them all would commit past them and leave
a redrive of the whole topic to a person. So when the rejected share of the last records passes a limit, the worker stops
where it is, and says why. What isn't committed by then never is. The share of a stretch is known only once a window of
it was seen, so rejections of up to one window may be on the dead-letter topic already.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from worker.records import Reason


class Breaker:
    """Watches the share of rejected records over the last `window_records` (evaluated once that many were seen).

    Args:
        rejected_share: trips when more than this share is rejected, in (0, 1]. 1 never trips.
        window_records: length of the window.
    """

    def __init__(self, *, rejected_share: float, window_records: int) -> None:
        self._limit = rejected_share
        self._window = window_records
        self._polls: deque[tuple[int, Counter[Reason]]] = deque()
        self._records = 0
        self._rejected: Counter[Reason] = Counter()
        self._tripped: str | None = None

    @property
    def tripped(self) -> str | None:
        """Why it tripped, for a person; None while it hasn't. It stays tripped until the process restarts."""
        return self._tripped

    def forget(self) -> None:
        """Start a new window: its records are read again, and would count twice. A breaker that has tripped stays so."""
        self._polls.clear()
        self._records = 0
        self._rejected.clear()

    def trip(self, why: str) -> None:
        """Stop for a reason that isn't rejections: forecasts that aren't trusted, and nothing else to make them."""
        self._tripped = self._tripped or why

    def add(self, records: int, rejected: Sequence[Reason]) -> bool:
        """Count one poll, or (with 0 records) rejections of records that were counted before, as bad forecasts are.

        True exactly when this trips the breaker.
        """
        counts = Counter(rejected)
        self._polls.append((records, counts))
        self._records += records
        self._rejected += counts
        while self._records - self._polls[0][0] >= self._window:
            gone, reasons = self._polls.popleft()
            self._records -= gone
            self._rejected -= reasons
        total = self._rejected.total()
        if self._tripped or self._records < self._window or total <= self._limit * self._records:
            return False
        shares = ", ".join(f"{reason} {count}" for reason, count in self._rejected.most_common())
        self._tripped = (
            f"{total} of the last {self._records} records were rejected ({shares}), more than breaker.rejected_share "
            f"{self._limit:g} allows; consuming stopped, and what wasn't committed yet won't be. Mend the producer, the schema, "
            "the model or the settings, then restart the worker."
        )
        return True
