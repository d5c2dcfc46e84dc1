"""Which engine serves. One fixed engine for now; loading another one while this one serves belongs here."""

from __future__ import annotations

from worker.engine import Engine


class EngineSlot:
    """Holds the serving engine. A batch keeps the engine that it was opened with, so a change takes effect between batches."""

    def __init__(self, serving: Engine) -> None:
        self._serving = serving

    @property
    def serving(self) -> Engine:
        """The engine for the next batch."""
        return self._serving

    def close(self) -> None:
        """Close it. Idempotent."""
        self._serving.close()
