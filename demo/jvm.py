"""A child JVM that serves on free ports of 127.0.0.1 out of a temporary directory, and leaves nothing behind.

`JvmServer` is what the embedded broker and the embedded registry share: the directory, the ports, the process, the wait
until it answers, the end. The server runs in a process group of its own, so a Ctrl-C on the terminal reaches the worker and
not the broker it still has to commit to; `demo.guardian` ends that group and removes the directory when this process dies
(and its forks, if it was forked without exec: they hold the guardian's pipe open too).
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from demo.artifacts import Progress
from demo.java import find_java

HOST = "127.0.0.1"
# Below the ranges that systems give to outgoing connections (32768 up on Linux, 49152 up on macOS): while a server is down
# for a restart, no client can be given its port, and none can connect to itself.
PORTS = range(20_000, 32_000)

_PORT_TAKEN = ("Address already in use", "BindException", "seems to be in use by another process")
_START_ATTEMPTS = 5
_POLL_S = 0.03
_STOP_S = 20.0


class ServerError(Exception):
    """A server didn't start, or ended by itself. The message ends with the last lines of its log."""


class PortTakenError(ServerError):
    """Another process took the port between its choice and the server's start."""


def free_ports(count: int) -> tuple[int, ...]:
    """`count` different ports that nobody listens on now. Somebody may the next moment: be ready to choose again."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            candidate = random.SystemRandom().choice(PORTS)
            if candidate in found:  # SO_REUSEADDR would let it be bound twice
                continue
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind((HOST, candidate))
                found.append(candidate)
        return tuple(found)


def accepts_connections(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


class JvmServer(ABC):
    """A context manager: the server answers inside the block, and outside nothing of it is left.

    A subclass gives `name` and `port_count`, and four steps: `_install` (files from the cache or the net), `_prepare`
    (what `self.ports` need in `self.directory`, replacing an earlier attempt), `_arguments` (of java), `_is_ready`. They may use what this class sets:
    `directory`, `ports`, `heap`, `jvm_options`.

    Raises (from `__enter__` and `start`):
        ArtifactError: its files can't be had.
        JavaError: there is no Java runtime.
        ServerError: it didn't come up in `startup_timeout_s`; the message ends with its log's last lines.
    """

    name: str
    port_count: int

    def __init__(
        self, *, progress: Progress | None, heap: str, jvm_options: Sequence[str], startup_timeout_s: float
    ) -> None:
        self.heap = heap
        self.jvm_options = tuple(jvm_options)
        self.directory = Path()
        self.ports: tuple[int, ...] = ()
        self._progress = progress
        self._startup_timeout_s = startup_timeout_s
        self._java = Path()
        self._guardian: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _install(self, progress: Progress | None) -> None:
        """Make sure that the server's files are on this machine."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write the configuration for these ports into the directory; may run more than once, each time with new ports."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Arguments of java after the JVM's own options."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers its clients. Asked often; must not block for longer than a second or two."""

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_file(self) -> Path:
        """Everything the server printed, over all its starts."""
        return self.directory / "server.log"

    def __enter__(self) -> Self:
        self._install(self._progress)
        self._java = find_java()
        self._open_directory()
        try:
            self._first_start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start again after `stop` or `kill`: same ports, same data. Returns when it answers. No effect while it runs."""
        if self.pid is not None:
            return
        if self._guardian is None:
            raise ServerError(f"{self.name} is closed: its data and ports are gone; make a new one")
        self._process = self._spawn(self._arguments())
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as an operator would (SIGTERM), and wait. Data and ports stay. No effect when it doesn't run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and wait. Data and ports stay. No effect when it doesn't run."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """End it and remove its directory. May be called twice."""
        self.kill()  # nothing of it is kept, so an orderly end would only take longer
        if self._guardian is None:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        self._guardian.wait()
        self._guardian = None

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log, "" if it has printed nothing."""
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def run_tool(self, what: str, arguments: Sequence[str]) -> None:
        """Run one of the server's own tools to its end, in the same process group.

        Raises `ServerError`, which names `what` and ends with the log, when it fails or takes longer than the server may.
        """
        tool = self._spawn(arguments)
        try:
            code = tool.wait(self._startup_timeout_s)
        except subprocess.TimeoutExpired:
            waited = f"{what} didn't end within {self._startup_timeout_s:g} s"
            raise ServerError(f"{self.name}: {waited}. Its log:\n{self.log_tail()}") from None
        finally:
            tool.kill()  # no effect on one that has ended
            tool.wait()
        if code:
            raise ServerError(f"{self.name}: {what} ended with code {code}. Its log:\n{self.log_tail()}")

    def _open_directory(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-').lower()}-"))
        script = str(Path(__file__).with_name("guardian.py"))
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(self.directory)], stdin=subprocess.PIPE, process_group=0
        )

    def _first_start(self) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.ports = free_ports(self.port_count)
            self._prepare()
            try:
                self.start()
            except PortTakenError:
                if attempt == _START_ATTEMPTS:
                    raise
            else:
                return

    def _spawn(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        if self._guardian is None:
            raise ServerError(f"{self.name} is closed")
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [str(self._java), f"-Xmx{self.heap}", *self._tidy(), *self.jvm_options, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._guardian.pid,
            )

    def _tidy(self) -> list[str]:
        """Options that keep a JVM's own files where they are removed: it leaves them in the system's folder when it is killed."""
        return [f"-Djava.io.tmpdir={self.directory}", "-XX:-UsePerfData"]

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        log_start = self.log_file.stat().st_size
        deadline = time.monotonic() + self._startup_timeout_s
        while not (accepts_connections(self.ports[0]) and process.poll() is None and self._is_ready()):
            if (code := process.poll()) is not None:
                printed = self.log_file.read_text(errors="replace")[log_start:]
                taken = any(sign in printed for sign in _PORT_TAKEN)
                reason = f"{self.name} ended with code {code} while starting on ports {self.ports}"
                raise (PortTakenError if taken else ServerError)(f"{reason}. Its log:\n{self.log_tail()}")
            if time.monotonic() >= deadline:
                waited = f"{self.name} didn't answer on port {self.ports[0]} within {self._startup_timeout_s:g} s"
                raise ServerError(f"{waited}. Its log:\n{self.log_tail()}")
            time.sleep(_POLL_S)
