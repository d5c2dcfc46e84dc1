"""The worker's commands: in a process of their own, as a person runs them, or in this one, which takes a tenth of the time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import structlog

import worker.__main__ as command_line
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
        return _ended(self.wait(timeout_s), self.output, self.log)


def run_command(*arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Ended:
    """Run `python -m worker` with `arguments` (logs as JSON) to its end."""
    with Command(*arguments, folder=folder, environ=environ) as command:
        return command.ended()


def call_command(*arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """The same in this process. Not for what works until a signal, nor for a replay that isn't refused: it makes itself nice."""
    output, error = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, logs_as_before(), redirect_stdout(output), redirect_stderr(error):
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        try:
            code = command_line.main(arguments)
        except SystemExit as end:  # as argparse leaves, after help or a wrong command
            code = end.code if isinstance(end.code, int) else 1
    return _ended(code, output.getvalue(), error.getvalue())


@contextmanager
def logs_as_before() -> Iterator[None]:
    """A command sets up logging for its process. Behind this block it is as it was before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()


def _ended(code: int, output: str, error: str) -> Ended:
    lines = error.splitlines(keepends=True)
    log = [line for line in lines if line.startswith("{")]
    return Ended(code, output, "".join(line for line in lines if line not in log), "".join(log))
