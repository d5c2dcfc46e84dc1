"""`python -m worker` in a process of its own, as a person runs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.child import Child
from tests.helpers.waiting import SLOW_S


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left: exit code, standard output, and the message: what isn't a log line on standard error."""

    code: int
    output: str
    message: str
    log: str


class Command(Child):
    """A command inside a `with` block, as `Child` is. See `ended`."""

    def __init__(self, *arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        super().__init__([sys.executable, "-m", "worker", *arguments], folder=folder, environ=environ)

    def ended(self, timeout_s: float = SLOW_S) -> Ended:
        """How it ended. Raises `AssertionError` after `timeout_s`."""
        code = self.wait(timeout_s)
        lines = self.log.splitlines(keepends=True)
        log = [line for line in lines if line.startswith("{")]
        return Ended(code, self.output, "".join(line for line in lines if line not in log), "".join(log))


def run_command(*arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Ended:
    """Run `python -m worker` with `arguments` (logs as JSON) to its end."""
    with Command(*arguments, folder=folder, environ=environ) as command:
        return command.ended()
