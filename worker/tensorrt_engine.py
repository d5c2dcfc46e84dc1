"""TensorRT as an `Engine`: batches run one after the other in one CUDA stream while Python decodes and encodes others.

    slot's page-locked memory -> copy -> run -> copy -> page-locked memory -> event        all in the stream, none waited for

- One lane per slot (`tensorrt_lane`): page-locked memory, CUDA graphs for the sizes that the card lists and for full batches.
- Lanes share the device's memory, and a context per profile and per size of graphs, which share one scratch memory, because the stream
  runs one batch at a time.
- `wait` asks the event and sleeps in between, for CUDA has no wait with a time limit; `collect` waits by the event itself, unless `wait`
  has seen it: while a version is loaded, each call to CUDA may meet the driver's lock.
- `close` frees in the reverse order of making: graphs, contexts, events, stream, device memory, page-locked memory, plan.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from worker.batch_shapes import BatchShapes
from worker.cuda import Cuda
from worker.deadline import Clock
from worker.engine import EngineSpec, Forecasts, Slot, Ticket
from worker.engine_slots import Slots
from worker.errors import EngineError
from worker.tensorrt_lane import Lane

log = structlog.get_logger(__name__)

PAUSE_S: Final = 50e-6
"""Between two looks at an event. A batch of thousands of rows takes milliseconds, so this delays it by a few per cent at most,
and a waiting loop leaves its core to the client's threads."""


@dataclass(slots=True)
class _Flight:
    """A batch in the stream. `wait` saw: it is done, and its failure if it failed, for `collect` to raise."""

    ticket: Ticket
    lane: Lane
    done: bool = False
    failure: EngineError | None = None


class TensorRtEngine:
    """See the module. Made by `tensorrt_load.load_engine`.

    Args:
        spec: what it takes and gives.
        cuda: the device.
        lanes: one per slot; `lanes[i].slot.index` is i.
        shapes: how batches are run.
        stream: of all lanes.
        resources: frees all that the engine holds, each thing once, in order; it raises nothing.
        clock: monotonic, for `wait`.
        pause: sleeps for so many seconds.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        cuda: Cuda,
        lanes: Sequence[Lane],
        shapes: BatchShapes,
        stream: int,
        resources: ExitStack,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spec = spec
        self._cuda = cuda
        self._lanes = tuple(lanes)
        self._shapes = shapes
        self._stream = stream
        self._resources = resources
        self._clock = clock
        self._pause = pause
        self._slots = Slots((lane.slot for lane in lanes), spec.max_rows)
        self._flights: deque[_Flight] = deque()
        self._closed = False

    @property
    def spec(self) -> EngineSpec:
        """See `Engine.spec`."""
        return self._spec

    def acquire(self) -> Slot | None:
        """See `Engine.acquire`."""
        return self._slots.acquire()

    def submit(self, slot: Slot, rows: int) -> Ticket:
        """See `Engine.submit`. Rows beyond `rows` may be overwritten with zeros."""
        if self._closed:
            raise EngineError("the engine is closed")
        self._slots.require(slot, rows)
        lane = self._lanes[slot.index]
        try:
            lane.start(rows, self._shapes.shape_for(rows))
        except EngineError:
            # Some of it may be in the stream: the slot is its caller's again only when nothing reads it any more. If the
            # context is lost, this raises that instead.
            self._cuda.synchronize(self._stream)
            raise
        ticket = self._slots.submitted(slot, rows)
        self._flights.append(_Flight(ticket, lane))
        return ticket

    def wait(self, ticket: Ticket, timeout_s: float) -> bool:
        """See `Engine.wait`. A failure counts as done: `collect` tells it."""
        flight = next((each for each in self._flights if each.ticket is ticket), None)
        if flight is None:
            return True
        until_s = self._clock() + timeout_s
        while not self._is_done(flight):
            left_s = until_s - self._clock()
            if left_s <= 0:
                return False
            self._pause(min(PAUSE_S, left_s))
        return True

    def collect(self, ticket: Ticket) -> Forecasts:
        """See `Engine.collect`."""
        self._slots.collected(ticket)
        flight = self._flights.popleft()
        try:
            if flight.failure is not None:
                raise flight.failure
            if not flight.done:
                self._cuda.wait_for(flight.lane.event)
        except EngineError:
            self._cuda.synchronize(self._stream)  # as in `submit`
            raise
        return Forecasts(flight.lane.result(ticket.rows), self._spec)

    def release(self, slot: Slot) -> None:
        """See `Engine.release`."""
        self._slots.release(slot)

    def close(self) -> None:
        """See `Engine.close`. Waits for what is in the stream. Columns of slots and forecasts are invalid from here on."""
        if self._closed:
            return
        self._closed = True
        self._flights.clear()
        self._slots.clear()
        try:
            self._cuda.synchronize(self._stream)
        except EngineError as error:
            log.warning("the GPU's last work failed while the engine was closed", error=str(error))
        self._resources.close()

    def _is_done(self, flight: _Flight) -> bool:
        if not flight.done:
            try:
                flight.done = self._cuda.is_done(flight.lane.event)
            except EngineError as error:
                flight.done, flight.failure = True, error
        return flight.done
