"""Which versions this worker has refused, and which of them it tries again without their bytes having changed.

A refusal belongs to the bytes as they were when loading them began: if they were replaced meanwhile, what is there now was
never tried. Used by the loader's thread.
"""

from __future__ import annotations

from collections.abc import Collection

from worker.deadline import Clock
from worker.store_listing import StoreView
from worker.version_choice import VersionId

RETRY_S = 60.0
"""A version that found no room is tried again after so long."""


class Refusals:
    """Refusals of the versions of one store.

    Args:
        view: remembers what was refused.
        clock: monotonic.
        passing: found no room before this was made, at the start.
    """

    def __init__(self, view: StoreView, clock: Clock, passing: Collection[VersionId] = ()) -> None:
        self._view = view
        self._clock = clock
        self._due_s = dict.fromkeys(passing, clock() + RETRY_S)

    def refuse(self, version: VersionId, reason: str, *, passing: bool) -> None:
        """`version` can't serve. passing: it may later, with the same bytes."""
        self._view.refuse(version, reason)
        if passing:
            self._due_s[version] = self._clock() + RETRY_S
        else:
            self._due_s.pop(version, None)

    def forgive_due(self) -> bool:
        """Forgive those whose time has come; whether there were any."""
        now_s = self._clock()
        due = [version for version, at_s in self._due_s.items() if at_s <= now_s]
        for version in due:
            del self._due_s[version]
            self._view.forgive(version)
        return bool(due)
