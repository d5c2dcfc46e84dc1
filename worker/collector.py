"""Python's garbage collector in a process that works for days.

Its full collections look through every object that may be part of a cycle. A worker's imports alone make 100,000 of them (NumPy, the
clients, the runtimes' bindings), which takes 30 to 45 ms: as long a pause of the loop, or of whatever thread happens to allocate. A
busy worker makes new objects fast enough for one such pause a second (docs/adr/0038).
"""

from __future__ import annotations

import gc


def freeze_objects() -> None:
    """From now on, full collections leave out all objects that are there. Best called when the start is over.

    They are still freed as soon as nothing refers to them any more, but not if they refer to each other: what is there and is replaced
    later, such as engines, must have no cycles. What is garbage already is collected first.
    """
    gc.collect()
    gc.freeze()
