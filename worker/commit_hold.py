"""How much longer a commit waits because the guard can't tell yet whether a new version's forecasts are as usual.   (pure)"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.engine import Engine

MOST_COMMITS = 30
"""Only so many commits after a change of version are held: where events are rare, the rows that the guard wants would take days."""


class CommitHold:
    """hold_s: the most that one commit waits longer. unsure_of: whether too few rows of an engine were seen."""

    def __init__(self, hold_s: float, unsure_of: Callable[[Engine], bool]) -> None:
        self._hold_s = hold_s
        self._unsure_of = unsure_of
        self._held: str | None = None
        self._commits = 0

    def longer_s(self, engines: Sequence[Engine]) -> float:
        """For a transaction with forecasts of `engines`, seconds."""
        new = self._new(engines)
        return 0.0 if new is None or (new == self._held and self._commits >= MOST_COMMITS) else self._hold_s

    def committed(self, engines: Sequence[Engine]) -> None:
        """Such a transaction was committed."""
        new = self._new(engines)
        self._commits = self._commits + 1 if new == self._held else 1
        self._held = new

    def _new(self, engines: Sequence[Engine]) -> str | None:
        """Digest of the engine that isn't known well enough; None if there is none, or nothing is ever held."""
        if not self._hold_s:
            return None
        return next((engine.spec.digest for engine in engines if self._unsure_of(engine)), None)
