"""Which engine serves, and which one takes over when it must go. Loading another one belongs here.

Used by the loop's thread only.
"""

from __future__ import annotations

from worker.engine import Engine


class EngineSlot:
    """Holds the serving engine. A batch keeps the engine that it was opened with, so a change takes effect between batches.

    Args:
        serving: computes.
        backup: stays loaded, to compute what the serving one can't and to take over from it. None: there is none.
    """

    def __init__(self, serving: Engine, backup: Engine | None = None) -> None:
        self._serving = serving
        self._backup = backup
        self._rolled_back: str | None = None
        self._quarantined: list[Engine] = []

    @property
    def serving(self) -> Engine:
        """The engine for the next batch."""
        return self._serving

    @property
    def backup(self) -> Engine | None:
        """The engine that takes over, and computes single rows meanwhile; None if there is none."""
        return self._backup

    @property
    def rolled_back(self) -> str | None:
        """Why the serving engine serves in the place of the one chosen; None while the chosen one serves."""
        return self._rolled_back

    def roll_back(self, reason: str) -> Engine | None:
        """The backup serves from now on; returns it, or None, with nothing changed, if there is no backup.

        The old engine stays loaded, because batches may still hold its slots, and never serves again here.
        """
        if self._backup is None:
            return None
        self._quarantined.append(self._serving)
        self._serving, self._backup = self._backup, None
        self._rolled_back = reason
        return self._serving

    def close(self) -> None:
        """Close them all. Idempotent."""
        for engine in (self._serving, self._backup, *self._quarantined):
            if engine is not None:
                engine.close()
