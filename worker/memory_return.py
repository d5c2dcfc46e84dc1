"""How many arenas the C library has, and how to make it give back memory that was freed. glibc only; elsewhere nothing
happens.

glibc gives threads arenas, each with a lock, until there are eight per core; from then on they share. Two things go wrong then:
a thread that loads a version, which takes and frees large blocks, holds up others whose arena it got by chance, even the loop;
and long-lived blocks between short-lived ones keep memory from going back. So every thread gets an arena of its own, and after
each version what is free is given back (docs/adr/0037 has the figures).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

ARENAS: Final = 64
"""At least so many: more than a worker has threads on few cores, which are some 25, and a dozen more with a GPU (one broker, ONNX
Runtime with one thread)."""
PER_CORE: Final = 8
"""What glibc allows by itself; ONNX Runtime's threads are as many as cores."""
_M_ARENA_MAX: Final = -8  # malloc.h


def separate_arenas() -> None:
    """An arena for each thread, however few cores there are. To be called before other threads are started: glibc looks once.

    What the environment says of arenas, by `MALLOC_ARENA_MAX` or `GLIBC_TUNABLES`, goes before.
    """
    libc = _libc()
    said = "MALLOC_ARENA_MAX" in os.environ or "malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if libc is not None and not said:
        libc.mallopt(_M_ARENA_MAX, max(ARENAS, PER_CORE * (os.cpu_count() or 1)))


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
