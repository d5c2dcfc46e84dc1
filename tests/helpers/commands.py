"""`python -m worker` in a process of its own, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left: exit code, standard output, and the message: what isn't a log line on standard error."""

    code: int
    output: str
    message: str
    log: str


class Command:
    """A command under way. `wait` for its end."""

    def __init__(self, *arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        )

    def wait(self, timeout_s: float = 60.0) -> Ended:
        """Its end. Kills it after `timeout_s`, and raises."""
        try:
            output, error = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, error = self.process.communicate()
            raise AssertionError(f"still there after {timeout_s:g} s:\n{output}\n{error}") from None
        lines = error.splitlines(keepends=True)
        log = [line for line in lines if line.startswith("{")]
        return Ended(self.process.returncode, output, "".join(line for line in lines if line not in log), "".join(log))


def run_command(*arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Ended:
    """Run `python -m worker` with `arguments` (logs as JSON) to its end."""
    return Command(*arguments, folder=folder, environ=environ).wait()
