"""Heavy work that must not take the processor from the loop: done by a thread of its own, at a low priority.

On Linux a priority (`nice`) belongs to a thread, and the threads that it starts inherit it for good: without privileges
nobody can raise it again. So an engine is never made here (ONNX Runtime's pool would stay slow for as long as the engine
serves); hashing, proving, warming up and comparing are. Elsewhere the priority stays as it is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

NICE = 10
"""Added to the priority that the process has."""
LOWEST = 19


def at_low_priority(work: Callable[[], T]) -> T:
    """What `work` returns or raises, after it ran on another thread at a low priority. Blocks until then."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":
            with suppress(OSError):  # a lower one may be in force already
                os.setpriority(os.PRIO_PROCESS, 0, min(LOWEST, os.getpriority(os.PRIO_PROCESS, 0) + NICE))
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="models-low", daemon=True)
    thread.start()
    thread.join()
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # its traceback holds this frame: they, and what the frames hold, would wait for the collector
    return results[0]
