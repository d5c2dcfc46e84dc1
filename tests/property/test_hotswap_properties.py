"""The slot under any order of hand-overs, batches, roll-backs and quarantines."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.helpers.engines import FakeEngine
from worker.engine import Engine, Ticket
from worker.handover import Declined, Fitted, Freed, Handover, Left, Order, Turned
from worker.hotswap import EngineSlot
from worker.version_choice import VersionId


class StrictEngine(FakeEngine):
    """Counts how often it was closed, and takes nothing afterwards."""

    closings = 0

    def close(self) -> None:
        self.closings += 1
        super().close()


class SlotMachine(RuleBasedStateMachine):
    """The machine is both sides: the loop, and the loader with its own view of who owns which engine."""

    def __init__(self) -> None:
        super().__init__()
        self.handover = Handover()
        self.made: list[tuple[StrictEngine, VersionId]] = []
        first = self.make()
        self.slot = EngineSlot(first.engine, handover=self.handover, versions=[first])
        self.serving: Fitted | None = first
        self.backup: Fitted | None = None
        self.upcoming: list[Fitted] = []
        self.flights: deque[tuple[Engine, Ticket]] = deque()
        self.collected: list[int] = []
        self.submitted = 0
        self.rollbacks = 0
        self.freed: list[Engine] = []

    def make(self) -> Fitted:
        number = len(self.made)
        engine = StrictEngine({"sales": 2}, digest=f"{number:064x}", slots=8)
        version = VersionId(f"v{number}", f"{number:064x}")
        self.made.append((engine, version))
        return Fitted(engine, version)

    def uses(self, engine: Engine) -> bool:
        return any(each is engine for each, _ in self.flights)

    @rule()
    def submit(self) -> None:
        engine = self.slot.serving
        slot = engine.acquire()
        if slot is not None:
            self.flights.append((engine, engine.submit(slot, 1)))

    @precondition(lambda self: self.flights)
    @rule()
    def collect(self) -> None:
        engine, ticket = self.flights.popleft()
        engine.collect(ticket)
        engine.release(ticket.slot)

    @precondition(lambda self: not self.handover.orders.full)
    @rule(keep=st.booleans())
    def order(self, keep: bool) -> None:  # noqa: FBT001 - drawn by name
        self.read()
        new = self.make()
        self.upcoming.append(new)
        backup = self.serving if keep else None
        if backup is not None and backup.version in self.handover.quarantined:
            backup = None
        self.handover.orders.put(Order(serving=new, backup=backup, rollbacks=self.rollbacks))

    @rule()
    def turn_over(self) -> None:
        self.slot.turn_over(self.uses)

    @rule()
    def roll_back(self) -> None:
        before, backup = self.slot.serving, self.slot.backup
        took_over = self.slot.roll_back("guard:drift")
        assert took_over is backup
        assert self.slot.serving is (before if backup is None else backup)

    @precondition(lambda self: self.slot.backup is None)
    @rule()
    def hold(self) -> None:
        """As the guard does when the serving version must go and there is no backup."""
        serving = self.slot.serving
        assert self.slot.hold("guard:drift")
        assert self.slot.serving is serving
        assert self.slot.held is not None

    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        versions = [version for _, version in self.made]
        bad = data.draw(st.sets(st.sampled_from(versions), max_size=2))
        self.handover.quarantined = MappingProxyType(dict.fromkeys(bad, "drifts"))
        self.slot.turn_over(self.uses)
        serving = next(version for engine, version in self.made if engine is self.slot.serving)
        assert serving not in bad or self.slot.held is not None

    @rule()
    def read(self) -> None:
        """The loader's side: take the reports and close what came back."""
        while not self.handover.inbox.empty():
            match self.handover.inbox.get_nowait():
                case Turned(order):
                    self.serving, self.backup = order.serving, order.backup
                    self.upcoming.remove(order.serving)
                case Declined(order):
                    self.upcoming.remove(order.serving)
                    order.serving.engine.close()
                case Freed(engine):
                    assert not self.uses(engine)
                    engine.close()
                    self.freed.append(engine)
                case Left(held=True, told=False):
                    self.rollbacks += 1
                case Left(held=False):
                    self.rollbacks += 1
                    self.serving = self.backup
                    self.backup = None
                case _:
                    pass

    @invariant()
    def no_batch_and_no_role_is_with_a_closed_engine(self) -> None:
        closed = [engine for engine, _ in self.made if engine.closings]
        assert not any(self.uses(engine) for engine in closed)
        assert self.slot.serving not in closed
        assert self.slot.backup not in closed
        assert self.slot.serving is not self.slot.backup

    @invariant()
    def nothing_is_closed_twice(self) -> None:
        assert max(engine.closings for engine, _ in self.made) <= 1

    def teardown(self) -> None:
        while self.flights:
            self.collect()
        self.slot.turn_over(self.uses)
        self.read()
        order = self.handover.orders.take()
        if order is not None:
            order.serving.engine.close()
        self.slot.close()
        assert [engine.closings for engine, _ in self.made] == [1] * len(self.made)


TestSlot = SlotMachine.TestCase
TestSlot.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
