"""The threads that look after versions while the loop serves: one that decides and loads, one that watches the folder.

Neither touches the loop's state; they meet it in `handover.py`. The watching thread only puts `Look` there: what has changed
is found by looking, so that events that were missed, doubled or about half-written files do no harm, and the folder is
looked at every `interval_s` anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Literal

import structlog
import watchfiles

from worker.errors import FatalEngineError
from worker.handover import Handover, Look
from worker.swapper import Swapper

log = structlog.get_logger(__name__)

STEP_MS = 100
"""The watching thread wakes so often; a change is told after two quiet ones."""
AFTER_A_BUG_S = 1.0
JOIN_S = 30.0
"""Loading can't be interrupted, so stopping waits for it so long; after that, the process ends around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """How the folder is watched; see `ModelsSettings`."""

    store: Path
    how: Literal["notify", "poll", "off"]
    interval_s: float


class ModelThread:
    """Runs a `Swapper`, and has it look whenever something may have changed."""

    def __init__(self, swapper: Swapper, handover: Handover, watching: Watching) -> None:
        self._swapper = swapper
        self._handover = handover
        self._watching = watching
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="models", daemon=True)]
        if watching.how != "off":
            self._threads.append(threading.Thread(target=self._watch, name="models-watch", daemon=True))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop, and close every engine that the loop doesn't hold. Once the loop has ended. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._handover.inbox.put(Look())
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)
        if not self._threads[0].is_alive():
            self._swapper.close()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.is_set():
            try:
                wait_s = self._turn(wait_s)
            except FatalEngineError as error:
                self._handover.failed = error
                return
            except Exception as error:  # one bad version must not end the watch over all others
                log.exception("looking after the versions; please report it")
                status, note = self._handover.status, f"a bug: {error!r}; see the log"
                if note not in status.notes:  # one that stays comes again with every turn
                    self._handover.status = replace(status, notes=(*status.notes, note))
                self._stop.wait(AFTER_A_BUG_S)

    def _turn(self, wait_s: float) -> float:
        """Take what was reported within `wait_s`, act on it, and say how long to wait next."""
        with suppress(Empty):
            self._swapper.handle(self._handover.inbox.get(timeout=max(0.0, min(wait_s, self._watching.interval_s))))
            while not self._stop.is_set():
                self._swapper.handle(self._handover.inbox.get_nowait())
        if not self._stop.is_set():
            return self._swapper.turn()
        return 0.0

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                for _ in changes(self._watching, self._stop):
                    self._handover.inbox.put(Look())
            except Exception as error:  # noqa: BLE001 - a folder that is away now may come back
                log.warning(
                    "the models' folder can't be watched now", store=str(self._watching.store), reason=str(error)
                )
            self._handover.inbox.put(Look())
            self._stop.wait(self._watching.interval_s)


Changes = Callable[[Watching, threading.Event], Iterator[object]]


def changes(watching: Watching, stop: threading.Event) -> Iterator[object]:
    """One item for each time when something in the folder changed, and one every `interval_s` without, until `stop`.

    Raises whatever the system says when the folder can't be watched.
    """
    return watchfiles.watch(
        watching.store,
        watch_filter=None,
        recursive=False,
        debounce=4 * STEP_MS,
        step=STEP_MS,
        rust_timeout=int(watching.interval_s * 1000),
        yield_on_timeout=True,
        stop_event=stop,
        force_polling=watching.how == "poll",
        poll_delay_ms=int(watching.interval_s * 1000),
        raise_interrupt=False,
    )
