"""Questions about processes, asked of the system."""

from __future__ import annotations

import os
from pathlib import Path

from demo.jvm import JvmServer


def process_exists(pid: int) -> bool:
    """Whether the process runs; one that has ended and isn't reaped yet doesn't."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # no /proc here, or gone just now
        return not Path("/proc/self").exists()
    return state != "Z"


def pid_of(server: JvmServer) -> int | None:
    """The server's process id, asked anew each time (a type checker takes a property for constant)."""
    return server.pid
