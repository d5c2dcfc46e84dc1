"""The engine that computes while the device of the serving one has no memory left.

The same model by another runtime: forecasts stay the version's own, only slower. Left as soon as the device takes a
batch again, which is tried between batches, at intervals. The loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from worker.deadline import Clock
from worker.engine import Engine, EngineSpec
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
        engine_for: Callable[[EngineSpec], Engine | None],
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
        """Whether `engine` is the stand-by; also after it was left, for batches that it still has."""
        return engine is self._engine

    def enter(self, primary: Engine) -> Engine | None:
        """Stand in for `primary` from now on; None if there is no stand-by for it."""
        engine = self._engine_for(primary.spec)
        if engine is None or engine is primary:
            return None
        self._engine, self._primary = engine, primary
        self._next_try_s = self._clock() + self._retry_s
        log.error(
            "device memory is full; the stand-by computes", model=primary.spec.model, version=primary.spec.version
        )
        return engine

    def try_primary(self) -> bool:
        """If it is time, see whether the primary computes again, and leave the stand-by if so. True if it was left.

        Call between batches only, while the primary has no tickets outstanding. Raises `FatalEngineError`.
        """
        primary, now_s = self._primary, self._clock()
        if primary is None or now_s < self._next_try_s:
            return False
        self._next_try_s = now_s + self._retry_s
        slot = primary.acquire()
        if slot is None:
            return False
        try:
            for column in slot.columns.values():
                column[: self._probe_rows] = 0.0
            primary.collect(primary.submit(slot, min(self._probe_rows, primary.spec.max_rows)))
        except FatalEngineError:
            raise
        except EngineError as error:
            log.warning("the device is still full; the stand-by goes on", reason=str(error))
            return False
        finally:
            primary.release(slot)
        self.forget()
        log.warning("the device computes again; the stand-by is left")
        return True

    def forget(self) -> None:
        """Stop standing in."""
        self._primary = None
        self._next_try_s = float("inf")
