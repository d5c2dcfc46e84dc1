"""Python's garbage collector in a process that works for days.

Its full collections look through every object that may be part of a cycle. The imports alone make 100,000 of them (Python, NumPy,
the clients, the runtime's bindings), which takes 30 to 70 ms, and a worker that is busy makes new objects fast enough for one every
few seconds: as long a pause of the loop, or of whatever thread happens to allocate (docs/adr/0038).
"""

from __future__ import annotations

import gc


def freeze_objects() -> None:
    """From now on, full collections leave out all objects that are there. Best called when the start is over.

    They are freed as always when nothing refers to them any more, but for cycles: call it where what is there stays. What is garbage
    already is collected first.
    """
    gc.collect()
    gc.freeze()
