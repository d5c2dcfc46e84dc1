"""However engines fail, every record has one outcome, in order, and nothing that a guard refuses is published."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

import hypothesis.strategies as st
import numpy as np
import pytest
import structlog
from hypothesis import given, settings

from tests.helpers.faulty import FaultyEngine
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import BACKUP_DIGEST, STANDBY_DIGEST, Rig, event, key, read
from worker.errors import AbortableError, EngineError
from worker.guard_reference import EDGES, Reference
from worker.settings_guard import GuardSettings

DIGESTS = {"fa" * 32: "engine", BACKUP_DIGEST: "backup", STANDBY_DIGEST: "standby"}
MARKS = st.integers(100, 109).map(float)
LIMITS = GuardSettings(least_rows=8, full_rows=8, window_rows=16, fault_share=0.3, poison_rows=2)
SHARES = np.eye(len(EDGES) - 1)[10]
REFERENCE = Reference(
    mean_of="sales", edges=EDGES, shares=SHARES, mean=0.1, control={"sales": np.full((1, 3), 500.0, np.float32)}
)

faults = st.fixed_dictionaries(
    {
        "poison": st.frozensets(MARKS, max_size=2),
        "spoilt": st.frozensets(MARKS, max_size=3),
        "dead": st.booleans(),
        "scale": st.sampled_from([1.0, 1.0, 1.3, 100.0]),
        "memory_rows": st.sampled_from([None, None, 2, 0]),
    }
)
actions = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.lists(MARKS, min_size=1, max_size=6)),
    st.tuples(st.just("step"), st.sampled_from([0.0, 0.01, 0.03, 0.6, 31.0]), st.integers(1, 4)),
    st.tuples(st.just("break"), st.sampled_from(["engine", "backup", "standby"]), faults),
    st.tuples(st.just("abort"), st.sampled_from(["produce", "commit"]), st.none()),
    st.tuples(st.just("finish"), st.none(), st.none()),
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Story:
    """A worker in memory, what was done to it, and what may be believed of its topic at the end."""

    def __init__(self, *, asynchronous: bool, backup: bool, standby: bool, slots: int) -> None:
        self.rig = Rig(
            MemoryBroker(2),
            asynchronous=asynchronous,
            slots=slots,
            engine_class=FaultyEngine,
            backup_class=FaultyEngine if backup else None,
            standby_class=FaultyEngine if standby else None,
            limits=LIMITS,
            references=dict.fromkeys(DIGESTS, REFERENCE),
        )
        self.rig.source.assign(0, 1)
        self.broken: dict[str, dict[str, object]] = {}
        self.ever_spoilt: dict[str, set[float]] = defaultdict(set)
        self.always_spoilt: dict[str, set[float]] = {}
        self.marks: dict[tuple[int, int], float] = {}

    def act(self, what: str, first: object, second: object) -> None:
        rig = self.rig
        if what == "send":
            assert isinstance(first, int)
            assert isinstance(second, list)
            for mark in second:
                sku = f"sku{mark:g}"
                record = rig.broker.append(first, key(sku), event(sku, (mark, mark, mark)))
                self.marks[first, record.offset] = mark
        elif what == "step":
            assert isinstance(first, float)
            assert isinstance(second, int)
            for _ in range(second):
                rig.clock.advance(first)
                self.survive()
        elif what == "break":
            assert isinstance(second, dict)
            self.broken[str(first)] = second
            self.apply()
        elif what == "abort":
            rig.delivery.fail_next[str(first)] = AbortableError("injected")
        else:
            for engine in filter(None, (rig.engine, rig.backup, rig.standby)):
                engine.finish()

    def apply(self) -> None:
        for name, how in self.broken.items():
            engine = getattr(self.rig, name)
            for attribute, value in how.items() if engine is not None else ():
                setattr(engine, attribute, value)

    def survive(self) -> None:
        """An engine error ends the process; the next one has sound engines."""
        try:
            self.rig.worker.step()
        except EngineError:
            self.rig.worker.abandon()
            self.restart()

    def restart(self) -> None:
        self.broken.clear()
        self.rig.restart()
        self.rig.source.assign(0, 1)

    def end(self) -> None:
        self.rig.delivery.fail_next.clear()
        for _ in range(3):  # what stopped without a backup is restarted with sound engines
            try:
                self.rig.settle(self.survive, steps=60)
            except AssertionError as unsettled:
                if "not settled" not in str(unsettled):
                    raise
                self.restart()
            else:
                break
        self.rig.settle(self.survive)


@settings(max_examples=300, deadline=None)
@given(
    told=st.lists(actions, max_size=25),
    asynchronous=st.booleans(),
    backup=st.booleans(),
    standby=st.booleans(),
    slots=st.integers(1, 3),
)
def test_one_outcome_each_in_order_and_nothing_refused_is_published(
    told: list[tuple[str, object, object]],
    asynchronous: bool,  # noqa: FBT001
    backup: bool,  # noqa: FBT001
    standby: bool,  # noqa: FBT001
    slots: int,
) -> None:
    story = Story(asynchronous=asynchronous, backup=backup, standby=standby, slots=slots)
    for what, first, second in told:
        story.act(what, first, second)
    story.end()
    outcomes = story.rig.outcomes()
    assert set(outcomes) == set(story.marks)
    assert set(outcomes.values()) <= {1}
    last: dict[tuple[int, object], int] = {}
    for message in story.rig.broker.published:
        if message.topic != "out":
            continue
        content = read(message)
        values = np.array(content["quantiles"], np.float32)
        place = int(str(content["source_partition"])), int(str(content["source_offset"]))
        assert np.isfinite(values).all()
        assert values.max() <= LIMITS.explosion_factor * story.marks[place]
        by_main = DIGESTS[str(content["engine_digest"])] == "engine"
        assert by_main == (content["fallback_reason"] is None)
        assert last.get((place[0], message.key), -1) < place[1]
        last[place[0], message.key] = place[1]
