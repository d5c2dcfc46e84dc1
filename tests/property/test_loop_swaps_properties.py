"""Whatever order versions, quarantines, full devices and events come in: one outcome each, and nothing of a quarantined version."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import structlog
from hypothesis import given, settings

from tests.helpers.loop_swaps import LoopSwaps
from tests.helpers.rig import read
from worker.handover import Freed

versions = st.integers(0, 20)  # counted from the newest one
actions = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("work"), st.integers(0, 1), st.integers(1, 9)),
    st.tuples(st.just("step"), st.sampled_from([0.0, 0.03, 0.6, 31.0]), st.integers(1, 4)),
    st.tuples(st.just("order"), st.booleans(), st.none()),
    st.tuples(st.just("quarantine"), st.sets(versions, max_size=2), st.booleans()),
    st.tuples(st.just("full"), versions, st.sampled_from([None, 0, 2])),
    st.tuples(st.just("finish"), st.none(), st.none()),
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Story:
    """A worker, what was done to it, and what was on the topic after each step."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.world = LoopSwaps(asynchronous=asynchronous)
        self.bad: set[str] = set()
        self.seen = 0
        self.sent = 0

    def act(self, what: str, first: object, second: object) -> None:
        world = self.world
        if what in {"send", "work"}:
            assert isinstance(first, int)
            assert isinstance(second, int)
            world.send(*range(100 + self.sent, 100 + self.sent + second), partition=first)
            self.sent += second
            for _ in range(0 if what == "send" else 3):  # leaves a transaction open
                world.finish()
                self.step(0.03)
        elif what == "step":
            assert isinstance(first, float)
            assert isinstance(second, int)
            for _ in range(second):
                self.step(first)
        elif what == "order" and not world.handover.orders.full:
            backup = world.versions[-1] if first and not world.engine(len(world.versions)).closed else None
            world.order(world.make(), backup)
        elif what == "quarantine":
            assert isinstance(first, set)
            chosen = [world.versions[-1 - place % len(world.versions)] for place in first]
            serving = [each for each in world.versions if each.engine is world.rig.engines.serving]
            chosen += serving if second else []
            world.quarantine(*chosen)
            self.bad = {each.version.name for each in chosen}
        elif what == "full":
            assert isinstance(first, int)
            engine = world.engine(len(world.versions) - first % len(world.versions))
            engine.memory_rows = second if second is None or isinstance(second, int) else None
        else:
            world.finish()

    def step(self, seconds: float) -> None:
        """One step; nothing that it committed is of a version that was quarantined before it began."""
        self.world.step(seconds)
        published = self.world.rig.broker.published
        new = [read(message) for message in published[self.seen :] if message.topic == "out"]
        self.seen = len(published)
        for forecast in new:
            version, digest = str(forecast["model_version"]), str(forecast["engine_digest"])
            assert version not in self.bad
            made = self.world.versions[int(version) - 1]
            by_standby = made.standby is not None and digest == made.standby.spec.digest
            assert by_standby or digest == made.engine.spec.digest
            assert forecast["fallback_reason"] in ({"onnx_standby"} if by_standby else {None, "quarantined"})

    def end(self) -> None:
        """The fleet lets go of everything, and a sound version comes."""
        world = self.world
        self.bad = set()
        world.quarantine()
        for _ in range(3):
            world.finish()
            self.step(0.0)
        world.handover.orders.take()
        world.order(world.make())
        world.settle()
        world.assert_once()
        freed = [id(report.engine) for report in world.reports if isinstance(report, Freed)]
        assert len(freed) == len(set(freed))
        assert max(engine.closings for engine in world.engines()) <= 1


@settings(max_examples=300, deadline=None)
@given(told=st.lists(actions, max_size=30), asynchronous=st.booleans())
def test_one_outcome_each_and_nothing_of_a_quarantined_version(
    told: list[tuple[str, object, object]],
    asynchronous: bool,  # noqa: FBT001
) -> None:
    story = Story(asynchronous=asynchronous)
    for what, first, second in told:
        story.act(what, first, second)
    story.end()
