"""A batch on its way through the engine it was opened with, and what came of it.

The loop's thread only. A flight owns its batch's slot from submission until `release`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.batching import Batch
from worker.deadline import Clock
from worker.engine import Columns, Engine, Forecasts, Ticket
from worker.errors import EngineError, FatalEngineError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Computed:
    """All rows of a batch through one engine. `failed`: row -> the engine's error; those rows of `forecasts` are arbitrary.

    `reason`: why not by the engine that serves; None if it is that one.
    """

    engine: Engine
    forecasts: Forecasts
    failed: Mapping[int, str]
    reason: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """`ticket` is None if the engine doesn't have the batch: it has no rows, or it was refused or computed elsewhere.

    computed: the result, once it is known. error: why there is none. inputs: a copy of the rows' inputs, once one was made
    because the slot is overwritten. submit_s: how long `submit` blocked. busy_until_s: the last moment at which the
    engine was seen to compute.
    """

    batch: Batch
    engine: Engine
    submitted_s: float
    ticket: Ticket | None = None
    submit_s: float = 0.0
    busy_until_s: float = field(default=float("-inf"))
    computed: Computed | None = None
    error: EngineError | None = None
    inputs: dict[str, NDArray[np.float32]] | None = None

    def ready(self, timeout_s: float, clock: Clock) -> bool:
        """True once there is a result or an error, False after `timeout_s` seconds."""
        if self.ticket is None or self.engine.wait(self.ticket, timeout_s):
            return True
        self.busy_until_s = clock()
        return False

    def collect(self, reason: str | None) -> None:
        """Take the engine's result or error, once. Blocks until it is there. Raises `FatalEngineError` if the engine is lost."""
        if self.ticket is None:
            return
        ticket, self.ticket = self.ticket, None
        try:
            forecasts = self.engine.collect(ticket)
        except FatalEngineError:
            raise
        except EngineError as error:
            self.error = error
        else:
            self.computed = Computed(engine=self.engine, forecasts=forecasts, failed={}, reason=reason)

    def copied_inputs(self) -> dict[str, NDArray[np.float32]]:
        """The inputs of the rows, float32[rows, ...] each, safe from what becomes of the slot."""
        if self.inputs is None:
            self.inputs = {name: column[: self.batch.rows].copy() for name, column in self.columns().items()}
        return self.inputs

    def columns(self) -> Columns:
        """The inputs of the rows, float32[rows or more, ...] each; a view, valid until the slot is overwritten or released."""
        if self.inputs is not None:
            return self.inputs
        return {} if self.batch.slot is None else self.batch.slot.columns

    def uses(self, engine: Engine) -> bool:
        """Whether it holds a slot of `engine`, or a result that `engine` computed."""
        return self.engine is engine or (self.computed is not None and self.computed.engine is engine)

    def release(self) -> None:
        """Give the slot back, with the result if nobody took it. The end of every flight."""
        with suppress(EngineError):  # nobody wants the result
            self.collect(None)
        if self.batch.slot is not None:
            self.engine.release(self.batch.slot)
