"""The time of day, for what people and other processes read. Waiting and deadlines go by the monotonic clock instead."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
