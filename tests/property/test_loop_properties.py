"""Whatever order things happen in, every record has exactly one outcome, and its position is committed with it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import hypothesis.strategies as st
import structlog
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import Rig, event, key, read
from worker.deadline import Deadline
from worker.errors import AbortableError, EngineError, FatalDeliveryError

PARTITIONS = 3
QUIET = structlog.make_filtering_bound_logger(logging.CRITICAL)  # thousands of rebalances, each worth two lines


class LoopMachine(RuleBasedStateMachine):
    """Events, rebalances, failures and crashes in any order; the outcome is checked at the end from what was committed."""

    @initialize(asynchronous=st.booleans(), coalesce=st.booleans(), slots=st.integers(1, 3))
    def start(self, asynchronous: bool, coalesce: bool, slots: int) -> None:  # noqa: FBT001
        structlog.configure(wrapper_class=QUIET)
        self.broker = MemoryBroker(PARTITIONS)
        self.rig = Rig(self.broker, asynchronous=asynchronous, coalesce=coalesce, slots=slots)
        self.tombstones = 0
        self.rig.source.assign(*range(PARTITIONS))

    @rule(partition=st.integers(0, PARTITIONS - 1), sku=st.integers(0, 3), skip=st.integers(0, 2))
    def forecastable(self, partition: int, sku: int, skip: int) -> None:
        self.broker.append(partition, key(f"p{partition}-{sku}"), event(f"p{partition}-{sku}"), skip=skip)

    @rule(partition=st.integers(0, PARTITIONS - 1), value=st.sampled_from([b"", b"garbage", event("x")[:-3]]))
    def broken(self, partition: int, value: bytes) -> None:
        self.broker.append(partition, b"k", value)

    @rule(partition=st.integers(0, PARTITIONS - 1), sku=st.integers(0, 3))
    def tombstone(self, partition: int, sku: int) -> None:
        self.broker.append(partition, key(f"p{partition}-{sku}"), None)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.03, 0.6]))
    def step(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        self._survive(self.rig.worker.step)

    @rule()
    def finish_engine(self) -> None:
        self.rig.engine.finish()

    @rule(partition=st.integers(0, PARTITIONS - 1), back=st.booleans())
    def revoke(self, partition: int, back: bool) -> None:  # noqa: FBT001
        self.rig.source.revoke(partition)
        if back:
            self.rig.source.assign(partition)

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def lose(self, partition: int) -> None:
        self.rig.source.lose(partition)

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def assign(self, partition: int) -> None:
        self.rig.source.assign(partition)

    @rule(call=st.sampled_from(["produce", "commit"]), fatal=st.booleans())
    def fail_next(self, call: str, fatal: bool) -> None:  # noqa: FBT001
        self.rig.delivery.fail_next[call] = FatalDeliveryError("injected") if fatal else AbortableError("injected")

    @rule()
    def fail_engine(self) -> None:
        self.rig.engine.fail_collect.append(EngineError("injected"))

    @rule()
    def crash(self) -> None:
        self.rig.restart()
        self.rig.source.assign(*range(PARTITIONS))

    @rule()
    def drain(self) -> None:
        self.rig.engine.finish()
        self._survive(lambda: self.rig.worker.drain(Deadline.after(1.0, self.rig.clock)))

    @precondition(lambda self: len(self.broker.records()) > 0)
    @rule()
    def settle(self) -> None:
        self.rig.delivery.fail_next.clear()
        self.rig.engine.fail_collect.clear()
        self.rig.source.assign(*range(PARTITIONS))
        self.rig.settle(lambda: self._survive(self.rig.worker.step))
        self._check()

    def teardown(self) -> None:
        if hasattr(self, "rig") and self.broker.records():
            self.settle()
        structlog.reset_defaults()

    def _survive(self, call: Callable[[], None]) -> None:
        """A fatal error ends the process; the orchestrator starts another one."""
        try:
            call()
        except (FatalDeliveryError, EngineError):
            self.rig.worker.abandon()
            self.crash()

    def _check(self) -> None:
        outcomes = self.rig.outcomes()
        doubled = {place: count for place, count in outcomes.items() if count > 1}
        assert not doubled, "an outcome came twice"
        records = self.broker.records()
        expected = {(r.partition, r.offset) for r in records if r.value is not None}
        assert outcomes.keys() <= expected
        tombstones = Counter(r.key for r in records if r.value is None)
        withdrawn = Counter(m.key for m in self.broker.published if m.topic == "out" and m.value is None)
        if self.rig.coalesce:
            self._check_last_of_each_key()
            assert withdrawn <= tombstones
        else:
            assert outcomes.keys() == expected, "a record has no outcome"
            assert withdrawn == tombstones

    def _check_last_of_each_key(self) -> None:
        """With coalescing, what a compacted topic keeps of a key stands for the key's last event."""
        last_in = {r.key: r for r in self.broker.records() if r.key != b"k"}
        last_out = {m.key: m for m in self.broker.published if m.topic == "out"}
        assert last_in.keys() == last_out.keys()
        for sku, record in last_in.items():
            message = last_out[sku]
            assert (message.value is None) == (record.value is None)
            if message.value is not None:
                assert read(message)["source_offset"] == record.offset
        for record in self.broker.records():
            if record.key == b"k":
                assert self.rig.outcomes()[record.partition, record.offset] == 1


TestLoop = LoopMachine.TestCase
TestLoop.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
