"""Waits for a backup that is still being loaded, when the guard needs one.                                        (pure)

The batch in question is discarded and read again once there is a backup: nothing doubtful is published, and no event is
lost. The wait has an end; after it, what is said of a worker without a backup holds.
"""

from __future__ import annotations

from worker.deadline import Clock
from worker.engine import Engine
from worker.hotswap import EngineSlot


class BackupWait:
    """What is waited for is a backup of the engine that serves; with another one, the wait is over. The loop's thread only.

    Args:
        engines: know whether there is a backup, or one is on its way.
        most_s: how long to wait at most, from the first time that one is missed.
    """

    def __init__(self, engines: EngineSlot, *, most_s: float, clock: Clock) -> None:
        self._engines = engines
        self._most_s = most_s
        self._clock = clock
        self._until_s: float | None = None
        self._doubted: Engine | None = None
        self._why: str | None = None

    @property
    def held(self) -> str | None:
        """Why nothing may be computed now; None once there is a backup or another version, none is coming, or the time is up."""
        if not self._worthwhile():
            self._why = None
        return self._why

    def needs(self, why: str) -> bool:
        """A backup is needed. True: wait for it, and discard what needs it. False: do with or without one, now.

        why: what for, with figures.
        """
        if self._doubted is not self._engines.serving:
            self._doubted, self._until_s = self._engines.serving, self._clock() + self._most_s
        if not self._worthwhile():
            return False
        self._why = f"{why}; waits up to {self._most_s:g} s for the backup, which is being loaded"
        return True

    def _worthwhile(self) -> bool:
        if not self._engines.backup_expected or self._doubted is not self._engines.serving:
            self._doubted = self._until_s = None
            return False
        return self._until_s is not None and self._clock() < self._until_s
