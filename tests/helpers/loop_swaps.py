"""A whole worker in memory whose versions come and go between its steps: the test is the loader and the fleet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np

from tests.helpers.faulty import FaultyEngine
from tests.helpers.memory import MemoryBroker
from tests.helpers.rig import INPUTS, Rig, event, key, read
from worker.engine import Engine
from worker.guard_reference import EDGES, Reference
from worker.handover import Declined, Fitted, Freed, Handover, Left, Order, Report
from worker.hotswap import EngineSlot
from worker.settings_guard import GuardSettings
from worker.statistics import Statistics
from worker.version_choice import VersionId

SLOTS = 2
MAX_ROWS = 4
SHARES = np.eye(len(EDGES) - 1)[10]
REFERENCE = Reference(
    mean_of="sales", edges=EDGES, shares=SHARES, mean=0.1, control={"sales": np.full((1, 3), 500.0, np.float32)}
)
"""Of the fake engines' forecasts for sales around 100."""
LIMITS = GuardSettings(least_rows=4, full_rows=4, window_rows=16, fault_share=0.5, poison_rows=2)


class ClosedOnce(FaultyEngine):
    """Counts its closings."""

    closings = 0

    def close(self) -> None:
        self.closings += 1
        super().close()


class LoopSwaps:
    """Version "1" serves at first. Each version has an engine and a stand-by of its own, whose digests tell them apart.

    What the loop reports is acted on in `read`, as the loader does: freed engines are closed.
    """

    def __init__(
        self, partitions: int = 2, *, asynchronous: bool = False, reference: Reference | None = None, **options: Any
    ) -> None:
        self.handover = Handover()
        self.asynchronous = asynchronous
        self.reference = reference or Reference()
        self.versions: list[Fitted] = []
        self.reports: list[Report] = []
        self.rollbacks = 0
        swaps = self

        class Slot(EngineSlot):
            def __init__(self, serving: Engine, backup: Engine | None = None) -> None:
                assert isinstance(serving, FaultyEngine)
                super().__init__(serving, backup, handover=swaps.handover, versions=[swaps.fit(serving)])

        self.rig = Rig(
            MemoryBroker(partitions),
            engine_class=ClosedOnce,
            asynchronous=asynchronous,
            max_rows=MAX_ROWS,
            slots=SLOTS,
            slot_class=Slot,
            **options,
        )
        self.rig.source.assign(*range(partitions))

    # -- versions ----------------------------------------------------------------------------------------------------

    def make(self) -> Fitted:
        """The next version, loaded: "2", "3" …"""
        number = len(self.versions) + 1
        return self.fit(self._engine(f"{number:02x}" * 32, str(number)))

    def fit(self, engine: FaultyEngine) -> Fitted:
        number = len(self.versions) + 1
        digest = f"5{number:01x}" * 32  # a version's is that of its ONNX file, which the stand-by computes
        standby = self._engine(digest, str(number))
        self.versions.append(Fitted(engine, VersionId(str(number), digest), self.reference, standby))
        return self.versions[-1]

    def engine(self, number: int) -> FaultyEngine:
        """The engine of version `number`, from 1."""
        engine = self.versions[number - 1].engine
        assert isinstance(engine, FaultyEngine)
        return engine

    def standby(self, number: int) -> FaultyEngine:
        engine = self.versions[number - 1].standby
        assert isinstance(engine, FaultyEngine)
        return engine

    def engines(self) -> list[ClosedOnce]:
        """All that were ever made."""
        both = [engine for each in self.versions for engine in (each.engine, each.standby)]
        return [engine for engine in both if isinstance(engine, ClosedOnce)]

    def order(self, serving: Fitted, backup: Fitted | None = None) -> None:
        """The loader hands over."""
        self.handover.orders.put(Order(serving=serving, backup=backup, rollbacks=self.rollbacks))

    def quarantine(self, *versions: Fitted) -> None:
        """The fleet says that these, and no others, are bad."""
        self.handover.quarantined = MappingProxyType({each.version: "drifts" for each in versions})

    def read(self) -> list[Report]:
        """The loader's turn: what the loop has reported since the last one."""
        new: list[Report] = []
        while not self.handover.inbox.empty():
            new.append(self.handover.inbox.get_nowait())
        for report in new:
            if isinstance(report, Freed):
                next(each for each in self.versions if each.engine is report.engine).close()
            elif isinstance(report, Left) and not (report.held and report.told):
                self.rollbacks += 1
        self.reports += new
        return new

    def kinds(self) -> Counter[type]:
        """How many reports of each kind there were."""
        return Counter(type(report) for report in self.reports)

    # -- events and steps --------------------------------------------------------------------------------------------

    def send(self, *marks: float, partition: int = 0) -> None:
        for mark in marks:
            sku = f"sku{mark:g}"
            self.rig.broker.append(partition, key(sku), event(sku, (mark, mark, mark)))

    def step(self, seconds: float = 0.0, times: int = 1) -> None:
        for _ in range(times):
            self.rig.clock.advance(seconds)
            self.rig.worker.step()
            self.read()

    def finish(self) -> None:
        for engine in self.engines():
            engine.finish()

    def settle(self) -> None:
        """Until everything that was sent is committed."""

        def step() -> None:
            self.finish()
            self.step()

        self.rig.settle(step)

    # -- what came of it ---------------------------------------------------------------------------------------------

    def published(self) -> list[dict[str, object]]:
        return [read(message) for message in self.rig.broker.published if message.topic == "out" and message.value]

    def runs(self) -> dict[int, list[str]]:
        """Partition -> versions of its forecasts by offset, repetitions left out."""
        rows: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for content in self.published():
            place = int(str(content["source_partition"])), int(str(content["source_offset"]))
            rows[place[0]].append((place[1], str(content["model_version"])))
        return {
            partition: [version for version, _ in groupby(version for _, version in sorted(found))]
            for partition, found in rows.items()
        }

    def by(self) -> list[tuple[str, str, object]]:
        """Model version, first letters of the engine's digest, fallback reason; of each forecast, repetitions left out."""
        found = [
            (str(each["model_version"]), str(each["engine_digest"])[:2], each["fallback_reason"])
            for each in self.published()
        ]
        return [each for each, _ in groupby(found)]

    def assert_once(self) -> None:
        """Every event has one outcome."""
        outcomes = self.rig.outcomes()
        assert set(outcomes.values()) <= {1}
        assert len(outcomes) == len(self.rig.broker.records())

    def end(self) -> None:
        """Both sides stop: every engine is closed, and none that the loop still held was closed before."""
        self.read()
        order = self.handover.orders.take()
        self.rig.engines.close()
        ordered: Sequence[Fitted] = [] if order is None else [each for each in (order.serving, order.backup) if each]
        declined = [each.order.serving for each in self.reports if isinstance(each, Declined)]
        for each in (*ordered, *declined):
            each.close()
        assert all(engine.closed for engine in self.engines())

    def _engine(self, digest: str, version: str) -> ClosedOnce:
        return ClosedOnce(
            INPUTS, max_rows=MAX_ROWS, slots=SLOTS, asynchronous=self.asynchronous, digest=digest, version=version
        )


def ended() -> Iterator[list[LoopSwaps]]:
    """For a fixture. Whatever a test did: in the end each event has one outcome, and every engine is closed."""
    worlds: list[LoopSwaps] = []
    yield worlds
    for world in worlds:
        world.assert_once()
        world.end()


def guarded(made: list[LoopSwaps], limits: GuardSettings = LIMITS, *, asynchronous: bool = False) -> LoopSwaps:
    """A worker whose guard judges few rows; it is added to `made`."""
    made.append(LoopSwaps(reference=REFERENCE, limits=limits, asynchronous=asynchronous))
    return made[-1]


def latest(world: LoopSwaps) -> Statistics:
    """Statistics after one more step that is sure to make a snapshot."""
    world.step(1.0)
    return world.rig.worker.statistics
