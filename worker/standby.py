"""The engine that computes while the device of the serving one has no memory left.

The same version by another runtime: forecasts stay the version's own, only slower. Left as soon as the device takes a
batch again, which is tried between batches, at intervals, while the stand-by goes on. The loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

import structlog

from worker.deadline import Clock
from worker.engine import Engine, Ticket
from worker.errors import EngineError, FatalEngineError

log = structlog.get_logger(__name__)

REASON = "onnx_standby"
"""What a forecast says that the stand-by made."""


class StandBy:
    """Stands in for one engine at a time.

    Args:
        engine_for: the stand-by for what an engine computes, loaded; None if there is none.
        retry_s: how long to wait before the engine that ran out of memory is tried again.
        probe_rows: rows of that trial.
    """

    def __init__(
        self,
        engine_for: Callable[[Engine], Engine | None],
        *,
        retry_s: float,
        probe_rows: int,
        clock: Clock,
    ) -> None:
        self._engine_for = engine_for
        self._retry_s = retry_s
        self._probe_rows = probe_rows
        self._clock = clock
        self._primary: Engine | None = None
        self._engine: Engine | None = None
        self._all: WeakSet[Engine] = WeakSet()
        self._trial: Ticket | None = None
        self._next_try_s = float("inf")

    @property
    def active(self) -> bool:
        """True while the stand-by computes."""
        return self._primary is not None

    @property
    def primary(self) -> Engine | None:
        """The engine that it stands in for; None while it doesn't."""
        return self._primary

    def instead_of(self, engine: Engine) -> Engine:
        """What computes for `engine` now: itself, or the stand-by."""
        return self._engine if self._engine is not None and self._primary is engine else engine

    def is_standby(self, engine: Engine) -> bool:
        """Whether `engine` is a stand-by; also after it was left, for batches that it still has."""
        return engine in self._all

    def uses(self, engine: Engine) -> bool:
        """Whether a trial of `engine` is under way, so that it mustn't be closed."""
        return self._trial is not None and self._primary is engine

    def enter(self, primary: Engine) -> Engine | None:
        """Stand in for `primary` from now on; None if there is no stand-by for it."""
        engine = self._engine_for(primary)
        if engine is None or engine is primary:
            return None
        self.forget()
        self._engine, self._primary = engine, primary
        self._all.add(engine)
        self._next_try_s = self._clock() + self._retry_s
        log.error(
            "device memory is full; the stand-by computes", model=primary.spec.model, version=primary.spec.version
        )
        return engine

    def try_primary(self) -> bool:
        """See whether the primary computes again, and leave the stand-by if so. True if it was left.

        Doesn't wait: one call begins the trial when it is time, and a later one sees what came of it.
        Call between batches only, while the primary has no tickets outstanding. Raises `FatalEngineError`.
        """
        primary = self._primary
        if primary is None:
            return False
        if self._trial is None and self._clock() >= self._next_try_s:
            self._next_try_s = self._clock() + self._retry_s
            self._trial = self._begun(primary)
        if self._trial is None or not primary.wait(self._trial, 0.0) or not self._went_well(primary):
            return False
        self.forget()
        log.warning("the device computes again; the stand-by is left")
        return True

    def forget(self) -> None:
        """Stop standing in. A trial under way is waited for: it is a small batch."""
        if self._primary is not None and self._trial is not None:
            with suppress(EngineError):  # nobody wants to know any more
                self._went_well(self._primary)
        self._primary = self._engine = None
        self._next_try_s = float("inf")

    def _begun(self, primary: Engine) -> Ticket | None:
        """A small batch, submitted; None if the primary has no free slot or refuses it."""
        slot = primary.acquire()
        if slot is None:
            return None
        rows = min(self._probe_rows, primary.spec.max_rows)
        for column in slot.columns.values():
            column[:rows] = 0.0
        try:
            return primary.submit(slot, rows)
        except EngineError as error:
            primary.release(slot)
            _still_full(error)
            return None

    def _went_well(self, primary: Engine) -> bool:
        trial, self._trial = self._trial, None
        assert trial is not None  # noqa: S101 - its callers have one
        try:
            primary.collect(trial)
        except EngineError as error:
            _still_full(error)
            return False
        finally:
            primary.release(trial.slot)
        return True


def _still_full(error: EngineError) -> None:
    """Note it, or raise it if it is a `FatalEngineError`."""
    if isinstance(error, FatalEngineError):
        raise error
    log.warning("the device is still full; the stand-by goes on", reason=str(error))
