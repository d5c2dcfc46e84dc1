"""An engine without a model: exact arithmetic, strict about ownership, slow or failing when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.engine_card import Plan
from worker.engine import Columns, EngineSpec, Forecasts, Slot, Ticket
from worker.errors import EngineError

STALE = np.float32(987654.0)
"""What a slot holds when it is handed out, and a result once its slot was released: right for nobody."""


def expected_forecasts(columns: Columns, rows: int, *, horizon: int, quantiles: Sequence[float]) -> NDArray[np.float32]:
    """float32[rows, horizon, quantiles] for rows [0, rows) of `columns`: |sum of the inputs' means| + day + quantile."""
    total = np.zeros(rows, np.float64)
    for column in columns.values():
        values = column[:rows].astype(np.float64)
        total += values if values.ndim == 1 else values.mean(axis=1)
    days = np.arange(horizon, dtype=np.float64)[None, :, None]
    levels = np.asarray(quantiles, dtype=np.float64)[None, None, :]
    return (np.abs(total)[:, None, None] + days + levels).astype(np.float32)


class _Outstanding(NamedTuple):
    ticket: Ticket
    failure: EngineError | None


class FakeEngine:
    """`Engine` for tests. Its forecasts are `expected_forecasts` of the submitted rows.

    It reads a slot when the result is due, not when it is submitted, so whoever writes into a slot that isn't his gets
    wrong numbers; and it overwrites results when their slot is released, so whoever keeps a view too long does, too.

    Synchronous: every ticket is ready at once. Asynchronous: a ticket is ready after `finish`, or, if `ready_after_waits`
    is set, once `wait` was called so often for it. `collect` of one that isn't ready counts in `blocked` and finishes it.

    `fail_submit` / `fail_collect`: errors, of which each call takes and raises the first (fail_collect: of batches
    submitted later, too). None in the list lets one call pass.
    """

    def __init__(
        self,
        inputs: Mapping[str, int | None],
        *,
        horizon: int = 3,
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        max_rows: int = 8,
        slots: int = 2,
        asynchronous: bool = False,
        ready_after_waits: int | None = None,
        digest: str = "fa" * 32,
        version: str = "1",
        plan: Plan | None = None,
    ) -> None:
        self._spec = EngineSpec(
            inputs=dict(inputs),
            horizon=horizon,
            quantiles=quantiles,
            max_rows=max_rows,
            model="fake",
            version=version,
            precision="fp32",
            digest=digest,
            plan=plan,
        )
        self._asynchronous = asynchronous
        self._ready_after_waits = ready_after_waits
        self._free = [_slot(index, self._spec) for index in range(slots)]
        self._held: dict[int, Slot] = {}
        self._results: dict[int, NDArray[np.float32]] = {}
        self._outstanding: deque[_Outstanding] = deque()
        self._finished = 0
        self._waits: dict[int, int] = {}
        self._sequence = 0
        self.fail_submit: list[EngineError | None] = []
        self.fail_collect: list[EngineError | None] = []
        self.submitted_rows: list[int] = []
        self.blocked = 0
        self.closed = False

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def outstanding(self) -> int:
        """Tickets that weren't collected yet."""
        return len(self._outstanding)

    @property
    def free(self) -> int:
        """Slots that `acquire` would give."""
        return len(self._free)

    def finish(self, count: int | None = None) -> None:
        """The oldest `count` outstanding tickets (all without a count) are ready from now on."""
        wanted = len(self._outstanding) if count is None else min(count, len(self._outstanding))
        if wanted:
            self._finished = max(self._finished, self._outstanding[wanted - 1].ticket.sequence + 1)

    def acquire(self) -> Slot | None:
        if self.closed or not self._free:
            return None
        slot = self._free.pop(0)
        self._held[slot.index] = slot
        for column in slot.columns.values():
            column.fill(STALE)
        return slot

    def submit(self, slot: Slot, rows: int) -> Ticket:
        if self.closed:
            raise EngineError("the engine is closed")
        self._require_held(slot)
        if not 1 <= rows <= self._spec.max_rows:
            raise ValueError(f"rows: got {rows}, expected 1 to {self._spec.max_rows}")
        failure = self.fail_submit.pop(0) if self.fail_submit else None
        if failure is not None:
            raise failure
        ticket = Ticket(slot, rows, self._sequence)
        self._sequence += 1
        self._outstanding.append(_Outstanding(ticket, self.fail_collect.pop(0) if self.fail_collect else None))
        self.submitted_rows.append(rows)
        if not self._asynchronous:
            self.finish()
        return ticket

    def wait(self, ticket: Ticket, timeout_s: float) -> bool:
        assert timeout_s >= 0, f"got a timeout of {timeout_s} s"
        self._waits[ticket.sequence] = self._waits.get(ticket.sequence, 0) + 1
        if self._ready_after_waits is not None and self._waits[ticket.sequence] >= self._ready_after_waits:
            self._finished = max(self._finished, ticket.sequence + 1)
        return ticket.sequence < self._finished

    def collect(self, ticket: Ticket) -> Forecasts:
        if not self._outstanding or self._outstanding[0].ticket is not ticket:
            raise ValueError(f"ticket {ticket.sequence} isn't the oldest outstanding one")
        if ticket.sequence >= self._finished:
            self.blocked += 1
            self._finished = ticket.sequence + 1
        _, failure = self._outstanding.popleft()
        if failure is not None:
            raise failure
        values = expected_forecasts(
            ticket.slot.columns, ticket.rows, horizon=self._spec.horizon, quantiles=self._spec.quantiles
        )
        self._results[ticket.slot.index] = values
        return Forecasts(values, self._spec)

    def release(self, slot: Slot) -> None:
        self._require_held(slot)
        del self._held[slot.index]
        if slot.index in self._results:
            self._results.pop(slot.index).fill(STALE)
        self._free.append(slot)

    def close(self) -> None:
        self.closed = True
        self._outstanding.clear()

    def _require_held(self, slot: Slot) -> None:
        if self._held.get(slot.index) is not slot:
            raise ValueError(f"slot {slot.index} wasn't acquired from this engine")
        if any(each.ticket.slot is slot for each in self._outstanding):
            raise ValueError(f"slot {slot.index} is the engine's until its ticket was collected")


def _slot(index: int, spec: EngineSpec) -> Slot:
    return Slot(
        index,
        {
            name: np.zeros(spec.max_rows if width is None else (spec.max_rows, width), np.float32)
            for name, width in spec.inputs.items()
        },
    )
