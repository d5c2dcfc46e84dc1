"""Ends the process when a call that has a deadline doesn't come back.

librdkafka's `send_offsets_to_transaction` may ignore its time-out and block for ever when the group coordinator goes away
while it asks (confluentinc/librdkafka issues 5456 and 5511, open in 2.16). Nothing in the process can interrupt that
call, so after a margin the process leaves, and its successor's `init_transactions` settles the transaction.

Threads: the loop writes `_limit`, one reference to an immutable value (or None); the watchdog's thread reads it now and
then. A reference is read whole, and a limit that is read late costs at most `CHECK_EVERY_S`. Nothing else is shared.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from worker.deadline import Clock, Deadline
from worker.errors import FatalDeliveryError

CHECK_EVERY_S = 0.5
MARGIN_S = 5.0
"""How far past its deadline a call may come back before it counts as lost."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The call `doing` must have come back when the clock shows `at_s`."""

    doing: str
    at_s: float


def leave(limit: Limit) -> NoReturn:
    """Say what hangs, with the stacks of all threads, and end the process without waiting for anything."""
    sys.stderr.write(f"forecast-worker: {limit.doing} didn't return within its time-out; leaving, to be restarted\n")
    faulthandler.dump_traceback(file=sys.stderr)
    sys.stderr.flush()
    os._exit(FatalDeliveryError.exit_code)


class Watchdog:
    """Watches one thread's calls. `ends` is called, from the watchdog's thread, with the limit that was overrun."""

    def __init__(self, clock: Clock, ends: Callable[[Limit], object] = leave) -> None:
        self._clock = clock
        self._ends = ends
        self._limit: Limit | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @contextmanager
    def watching(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """The call in this block must come back soon after `deadline`."""
        self._limit = Limit(doing, deadline.at_s + MARGIN_S)
        try:
            yield
        finally:
            self._limit = None

    def check(self) -> None:
        """Call `ends` if a limit was overrun. What the thread does every `CHECK_EVERY_S`."""
        limit = self._limit
        if limit is not None and self._clock() > limit.at_s:
            self._ends(limit)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_EVERY_S):
            self.check()
