"""`forecast-worker replay`: a span of the input topic through the live path's own parts, once.

Reading order: `replay_request` (what was asked), `replay_span` (which records), `replay_plan` (is it possible; remembered
in `replay_book`), this file (does it), with `replay_source` (reads to the end), `replay_delivery` (counts, guards the live
topic by `replay_fresher` and `replay_live`), `replay_throttle` (makes way for live work), `replay_parts` (several processes).

Everything between source and delivery is the live worker: decoder, batcher, pipeline, publisher, guard, encoder, engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from worker.deadline import Clock, Deadline
from worker.errors import FatalDeliveryError, FencedError, ReplayStoppedError
from worker.pipeline import Probe
from worker.replay_book import Totals
from worker.replay_compose import Part, assembled_part
from worker.replay_delivery import ReplayDelivery
from worker.replay_plan import Plan
from worker.settings_model import Settings

REPORT_EVERY_S: Final = 0.5
SETTLE_S: Final = 120.0
"""How long the last look at the live topic waits for other transactions there to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far one process of a replay is. `read`: records of this run, committed or not; `left`: offsets to the ends.

    seconds: from this run's first record to now or to its last commit; 0 if there was none.
    """

    totals: Totals = field(default_factory=Totals)
    read: int = 0
    left: int = 0
    seconds: float = 0.0
    paused_s: float = 0.0
    paused: bool = False
    done: bool = False


def replay_part(
    settings: Settings,
    plan: Plan,
    number: int,
    *,
    tell: Callable[[Standing], None],
    stopping: Callable[[], bool],
    clock: Clock = time.monotonic,
    probe: Probe = lambda _: None,
) -> Standing:
    """Do process `number`'s share of the plan, or as much as is done when `stopping`: what it comes to.

    `tell` hears of the standing now and then, and of the last one before an error. Raises whatever ends a worker; what was committed stays.
    """
    with assembled_part(settings, plan, number, probe=probe) as part:
        stop = StopSignal(stopping, settings.shutdown.grace_s, clock)
        run = _Run(part, clock)
        try:
            run.work(tell, stop)
            look_last(part.delivery, settings.input.topic, stop)
        except BaseException:
            part.worker.abandon()
            tell(run.standing())  # what it committed counts, however it ends
            raise
        return run.standing()


class StopSignal:
    """Whether a replay is to stop, and until when: `grace_s` after that was first seen.

    Args:
        stopping: asked again and again until it says so.
        grace_s: for everything that comes after.
        clock: monotonic.
    """

    def __init__(self, stopping: Callable[[], bool], grace_s: float, clock: Clock) -> None:
        self._stopping = stopping
        self._until: Deadline | None = None
        self.grace_s = grace_s
        self.clock = clock

    @property
    def until(self) -> Deadline | None:
        """When the grace ends; None as long as nobody stops."""
        if self._until is None and self._stopping():
            self._until = Deadline.after(self.grace_s, self.clock)
        return self._until


@dataclass(frozen=True, slots=True)
class _Sooner(Deadline):
    """A deadline that a stop brings nearer."""

    stop: StopSignal

    @property
    def remaining_s(self) -> float:
        until = self.stop.until
        left_s = max(0.0, self.at_s - self.clock())
        return left_s if until is None else min(left_s, until.remaining_s)


def look_last(delivery: ReplayDelivery, topic: str, stop: StopSignal) -> None:
    """Put back what is still buried, within `SETTLE_S`, or the grace once it is to stop. `topic`: the input's.

    Raises `ReplayStoppedError` if the grace was too short for that.
    """
    deadline = _Sooner(stop.clock() + SETTLE_S, stop.clock, stop)
    try:
        delivery.settle(topic, deadline)
    except FencedError:
        raise
    except FatalDeliveryError as error:
        if stop.until is None or not stop.until.expired:
            raise
        raise ReplayStoppedError(
            f"stopped before the last look at the live topic was over, within {stop.grace_s} s (shutdown.grace_s): a "
            f"fresher forecast may lie behind one of this replay until the key's next event; {error}"
        ) from error


class _Run:
    """One process at work."""

    def __init__(self, part: Part, clock: Clock) -> None:
        self._part = part
        self._clock = clock
        self._first_s: float | None = None
        self._ended_s: float | None = None

    def work(self, tell: Callable[[Standing], None], stop: StopSignal) -> None:
        """Step until all is committed, or until a stop; then what is under way is finished within its grace."""
        part, told_s = self._part, float("-inf")
        part.worker.start()
        while not self._is_done(stop.grace_s):
            until = stop.until
            if until is not None:
                part.worker.drain(until)
                break
            part.worker.step()
            now_s = self._clock()
            if self._first_s is None and part.worker.statistics.records:
                self._first_s = now_s
            if part.worker.stuck is not None:
                raise ReplayStoppedError(f"the replay can't go on: {part.worker.stuck}")
            if now_s - told_s >= REPORT_EVERY_S:
                told_s = now_s
                tell(self.standing())
        self._ended_s = self._clock()

    def _is_done(self, grace_s: float) -> bool:
        """Whether everything is read and committed. A drain that fails rewinds, and then there is more to do."""
        if self._part.source.done:
            self._part.worker.drain(Deadline.after(grace_s, self._clock))
        return self._part.source.done

    def standing(self) -> Standing:
        """How far it is."""
        part = self._part
        until_s = self._ended_s or self._clock()
        return Standing(
            totals=part.delivery.totals,
            read=part.worker.statistics.records,
            left=part.source.left_offsets,
            seconds=0.0 if self._first_s is None else until_s - self._first_s,
            paused_s=part.throttle.paused_s,
            paused=part.throttle.paused,
            done=part.source.done,
        )
