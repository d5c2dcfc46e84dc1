"""How the C library keeps memory that was freed, and how to make it give that back. glibc only; elsewhere nothing happens.

Loading and proving a version takes and frees large blocks, on threads that come and go. glibc has an arena for nearly each of them,
eight per core at most, and keeps in each what was freed there: over some hundred versions the process grew by half of its size.
With few arenas that are trimmed after each version it stays as it is (docs/hot-swap.md has the figures).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

ARENAS: Final = 2
"""Threads share them, and one may wait for another for a moment. The setting of glibc's own variable, `MALLOC_ARENA_MAX`, goes before."""
_M_ARENA_MAX: Final = -8  # malloc.h


def limit_arenas() -> None:
    """From now on, no more arenas than `ARENAS` come into being. Best called before other threads are started."""
    libc = _libc()
    if libc is not None and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return free memory of all arenas to the system. Other threads wait for an arena while it is looked at, a millisecond or so."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
