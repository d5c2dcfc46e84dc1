"""Whatever order things happen in, every record has exactly one outcome, and its position is committed with it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

import hypothesis.strategies as st
import structlog
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.helpers.memory import MemoryBroker, Published
from tests.helpers.rig import Rig, event, key, read
from worker.deadline import Deadline
from worker.errors import AbortableError, EngineError, FatalDeliveryError

PARTITIONS = 3
BROKEN = b"broken"
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
        self.broker.append(partition, key(f"sku{sku}"), event(f"sku{sku}"), skip=skip)

    @rule(partition=st.integers(0, PARTITIONS - 1), value=st.sampled_from([b"", b"garbage", event("x")[:-3]]))
    def broken(self, partition: int, value: bytes) -> None:
        self.broker.append(partition, BROKEN, value)

    @rule(partition=st.integers(0, PARTITIONS - 1), sku=st.integers(0, 3))
    def tombstone(self, partition: int, sku: int) -> None:
        self.broker.append(partition, key(f"sku{sku}"), None)

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
        came = self._by_key((r.partition, r.key, None if r.value is None else r.offset) for r in records)
        left = self._by_key((m.partition, m.key, _source_offset(m)) for m in self.broker.published if m.topic == "out")
        if self.rig.coalesce:
            assert {place: offsets[-1] for place, offsets in came.items()} == {
                place: offsets[-1] for place, offsets in left.items()
            }, "what a compacted topic keeps isn't each key's last event"
            assert all(outcomes[r.partition, r.offset] == 1 for r in records if r.key == BROKEN)
        else:
            assert outcomes.keys() == expected, "a record has no outcome"
            assert came == left, "forecasts and withdrawals of a key left in another order than their events came"

    @staticmethod
    def _by_key(
        messages: Iterable[tuple[int | None, bytes | None, int | None]],
    ) -> dict[tuple[int | None, bytes | None], list[int | None]]:
        """(partition, key) -> offsets of the events, None for a tombstone, without the broken ones."""
        offsets: dict[tuple[int | None, bytes | None], list[int | None]] = defaultdict(list)
        for partition, sku, offset in messages:
            if sku != BROKEN:
                offsets[partition, sku].append(offset)
        return offsets


def _source_offset(message: Published) -> int | None:
    return None if message.value is None else int(str(read(message)["source_offset"]))


TestLoop = LoopMachine.TestCase
TestLoop.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
