"""Versions that this worker's guard rolled back, together with what the fleet was told of them.                    (pure)

Without a fleet, a version that was found bad stays out until the worker restarts, also if it leaves the store and comes back
(a file system that is away for a moment looks like that). With one, the finding goes to the control
topic, and once it is there the topic's word counts: releasing it there releases it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from worker.control import Command, Commands
from worker.version_choice import Control, VersionId


class Findings:
    """commands: what the fleet was told, as of now."""

    def __init__(self, model: str, commands: Callable[[], Commands]) -> None:
        self._model = model
        self._commands = commands
        self._found: dict[VersionId, tuple[str, Command | None]] = {}

    def add(self, version: VersionId, reason: str) -> None:
        """This worker's guard rolled `version` back."""
        self._found[version] = (reason, self._commands().about(self._model, version))

    def control(self) -> Control:
        """What is in force: the fleet's commands, and the findings that it doesn't know yet."""
        commands = self._commands()
        self._found = {
            version: (reason, known)
            for version, (reason, known) in self._found.items()
            if commands.about(self._model, version) is known
        }
        control = commands.of(self._model)
        mine = {version: reason for version, (reason, _) in self._found.items()}
        return replace(control, quarantined=MappingProxyType({**mine, **control.quarantined}))
