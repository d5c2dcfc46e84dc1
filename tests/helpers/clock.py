"""Time that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """Call it for the seconds it shows; `advance` moves it on."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"a monotonic clock doesn't run backwards: got {seconds} s")
        self.now_s += seconds
