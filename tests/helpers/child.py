"""Processes that a test starts. However the test ends, they are ended, and their files closed and removed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.helpers.waiting import SLOW_S, wait_until

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A process inside a `with` block, which starts it; leaving the block kills it if it is still there.

    What it prints goes to files, so nobody has to read a pipe for it to go on. They are there inside the block only.

    command: with its arguments. folder: its working directory, None: ours. environ: laid over ours; the working tree is
    on its Python path.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self._folder = folder
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._place = Path()
        self._cleanup = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._place = Path(cleanup.enter_context(TemporaryDirectory(prefix="child-")))
            self._start()
            cleanup.callback(self._end)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    @property
    def output(self) -> str:
        """What it has written to standard output so far."""
        return self._read("output")

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return self._read("log")

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._started.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal. No effect when it has ended."""
        self._started.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self._started.kill()
        self._started.wait()

    def wait(self, timeout_s: float = SLOW_S) -> int:
        """Its exit code; negative: the signal that killed it. Raises `AssertionError` with its log after `timeout_s`."""
        try:
            return self._started.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {timeout_s:g} s: {self}") from None

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = SLOW_S) -> None:
        """Return when `condition` holds. Raises `AssertionError` with its log if it ends before, or after `timeout_s`."""

        def holds() -> bool:
            ended = self.poll() is not None  # asked first: what it did at last must count
            if condition():
                return True
            assert not ended, f"it ended before: {what}: {self}"
            return False

        try:
            wait_until(holds, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self}") from None

    def __str__(self) -> str:
        return f"{self.command}, exit code {self.poll()}\n{self.output}\n{self.log}"

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "used outside its with block"
        return self._process

    def _start(self) -> None:
        with (self._place / "output").open("wb") as output, (self._place / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=self._folder,
                env=self._environ,
            )

    def _end(self) -> None:
        if self.poll() is None:
            self._started.kill()
        self._started.wait()

    def _read(self, name: str) -> str:
        return (self._place / name).read_text(encoding="utf-8", errors="replace")
