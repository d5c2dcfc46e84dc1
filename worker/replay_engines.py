"""A replay has one model from its first forecast to its last: its engines never change places."""

from __future__ import annotations

from typing import Final

from worker.engine import Engine
from worker.errors import ReplayStoppedError
from worker.guard import Rule
from worker.hotswap import EngineSlot

_FAILED: Final = frozenset({Rule.ENGINE_ERROR.fallback_reason, Rule.WRONG_SHAPE.fallback_reason})
"""Here the engine's own error says more."""
_TOO_MANY: Final = Rule.FAULT_SHARE.fallback_reason


class OneModel(EngineSlot):
    """The engines of a replay. The backup computes single rows that the model can't, each marked so, and never takes over.

    So a slow engine stays (a replay runs niced, its latency says nothing), and what would make a live worker roll back
    ends the replay before a forecast of another version is written.
    """

    @property
    def can_roll_back(self) -> bool:
        """Never."""
        return False

    def roll_back(self, reason: str) -> Engine | None:
        """Returns None if the engine failed, so that its error goes up. Else raises `ReplayStoppedError`."""
        if reason in _FAILED:
            return None
        spec = self.serving.spec
        remedy = "Replay with another --model under another --name"
        if reason != _TOO_MANY:
            remedy = (
                "A span unlike the data of the model's card, Christmas for one, can look like a broken model. If its "
                "forecasts are sound, run the same command with --set guard.without_backup=publish to go on; else replay "
                "with another --model under another --name"
            )
        raise ReplayStoppedError(
            f"the guard stopped the replay ({reason}): it doesn't trust the forecasts of {spec.model} {spec.version}, and one "
            f"replay has one model, so no backup takes over. {remedy}"
        )
