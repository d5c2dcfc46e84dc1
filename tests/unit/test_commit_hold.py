"""A whole worker in memory whose version changes: nothing of the new one is committed before the guard can judge it."""

from __future__ import annotations

import numpy as np

from tests.helpers.faulty import FaultyEngine
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import INPUTS, Rig, event, key, read
from worker.commit_hold import MOST_COMMITS, CommitHold
from worker.guard_reference import EDGES, Reference
from worker.handover import Fitted, Order
from worker.settings_guard import GuardSettings
from worker.version_choice import VersionId

FIRST, SECOND = "fa" * 32, "dd" * 32
HOLD_S = 2.0
LIMITS = GuardSettings(least_rows=8, full_rows=8, window_rows=32)


def reference() -> Reference:
    """Of `FakeEngine`'s forecasts for sales around 100: next to no difference from the recent mean."""
    shares = np.zeros(len(EDGES) - 1)
    shares[10] = 1.0
    return Reference(mean_of="sales", edges=EDGES, shares=shares, mean=0.1)


class Swapped:
    """A worker whose second version, with `scale` times the forecasts, took over after eight rows of the first one."""

    def __init__(self, *, scale: float = 1.0, judged: bool = True) -> None:
        known = reference() if judged else Reference()
        self.rig = Rig(
            MemoryBroker(1), engine_class=FaultyEngine, limits=LIMITS, hold_s=HOLD_S, references={FIRST: known}
        )
        self.rig.source.assign(0)
        self._sent = 0
        self.send(8)
        self.rig.settle()
        second = FaultyEngine(INPUTS, max_rows=4, slots=2, digest=SECOND)
        second.scale = scale
        self.rig.engines._handover.orders.put(
            Order(
                serving=Fitted(second, VersionId("2", SECOND), known),
                backup=Fitted(self.rig.engine, VersionId("1", FIRST), known),
                losses=0,
            )
        )
        self.steps(2)
        assert self.rig.engines.serving is second

    def send(self, count: int) -> None:
        """That many more events."""
        for number in range(self._sent, self._sent + count):
            sku = f"sku{number}"
            self.rig.broker.append(0, key(sku), event(sku, (100.0 + number,) * 3))
        self._sent += count

    def steps(self, times: int, seconds: float = 0.1) -> None:
        """Steps of the loop, and the clock moves on before each."""
        for _ in range(times):
            self.rig.clock.advance(seconds)
            self.rig.worker.step()

    def makers(self) -> list[str]:
        """The first letters of the digest of each committed forecast behind the first eight."""
        found = [read(message) for message in self.rig.broker.published if message.topic == "out"]
        return [str(content["engine_digest"])[:2] for content in found][8:]


def test_few_rows_of_a_drifted_version_wait_and_never_come_out() -> None:
    made = Swapped(scale=1.3)
    made.send(4)
    made.steps(15)  # three times the commit interval
    assert made.makers() == []
    made.send(8)
    made.rig.settle()
    assert made.makers() == ["fa"] * 12
    assert set(made.rig.outcomes().values()) == {1}


def test_a_sound_version_is_committed_as_soon_as_it_was_seen_often_enough() -> None:
    made = Swapped()
    made.send(4)
    made.steps(10)
    assert made.makers() == []
    made.send(4)
    made.steps(3)
    assert made.makers() == ["dd"] * 8


def test_nobody_waits_for_ever() -> None:
    made = Swapped()
    made.send(4)
    made.steps(int((0.5 + HOLD_S) / 0.1) + 3)
    assert made.makers() == ["dd"] * 4


def test_what_cannot_be_judged_does_not_wait() -> None:
    made = Swapped(judged=False)
    made.send(4)
    made.steps(8)
    assert made.makers() == ["dd"] * 4


def test_where_events_are_rare_only_the_first_commits_after_a_change_wait() -> None:
    first, second = (FaultyEngine(INPUTS, digest=digest) for digest in (FIRST, SECOND))
    unsure = {SECOND}
    hold = CommitHold(HOLD_S, lambda engine: engine.spec.digest in unsure)
    for _ in range(MOST_COMMITS):
        assert hold.longer_s([first, second]) == HOLD_S
        hold.committed([first, second])
    assert hold.longer_s([second]) == 0.0
    unsure.add(FIRST)
    assert hold.longer_s([first]) == HOLD_S  # another change
    hold.committed([first])
    assert hold.longer_s([second]) == HOLD_S


def test_without_a_hold_nothing_waits() -> None:
    assert CommitHold(0.0, lambda _: True).longer_s([FaultyEngine(INPUTS, digest=FIRST)]) == 0.0
