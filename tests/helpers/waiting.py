"""Waiting for what another process does. Tests of our own code inject a clock instead."""

from __future__ import annotations

import time
from collections.abc import Callable

SLOW_S = 90.0
"""How long anything may take that ends by itself. Only a failure costs that much, so it fits a machine with no time."""


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = SLOW_S) -> None:
    """Return as soon as `condition` holds. Raises `AssertionError` naming `what` when it doesn't within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def slowdown() -> float:
    """How many times longer computing takes now than with a processor of one's own, 1 at least."""
    began_s, cpu_s = time.monotonic(), time.process_time()
    while (used_s := time.process_time() - cpu_s) < 0.1:
        pass
    return max(1.0, (time.monotonic() - began_s) / used_s)
