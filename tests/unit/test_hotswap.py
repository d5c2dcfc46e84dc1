from types import MappingProxyType

from tests.helpers.engines import FakeEngine
from worker.engine import Engine
from worker.handover import Declined, Fitted, Freed, Handover, Order, Report, Turned
from worker.hotswap import QUARANTINED, EngineSlot
from worker.version_choice import VersionId


def test_serves_the_engine_it_was_given_and_closes_it_more_than_once() -> None:
    engine = FakeEngine({"sales": 2})
    slot = EngineSlot(engine)
    assert slot.serving is engine
    assert not engine.closed
    slot.close()
    slot.close()
    assert engine.closed


def test_the_backup_takes_over_once_and_the_old_engine_stays_open_until_the_end() -> None:
    first, second = FakeEngine({"sales": 2}), FakeEngine({"sales": 2})
    slot = EngineSlot(first, second)
    assert (slot.backup, slot.rolled_back) == (second, None)
    assert slot.roll_back("guard:drift") is second
    assert (slot.serving, slot.backup, slot.rolled_back) == (second, None, "guard:drift")
    assert slot.roll_back("guard:shift") is None
    assert (slot.serving, slot.rolled_back) == (second, "guard:drift")
    assert [engine.closed for engine in (first, second)] == [False, False]  # batches may hold the first one's slots
    slot.close()
    assert [engine.closed for engine in (first, second)] == [True, True]


def versioned(number: int) -> Fitted:
    digest = f"{number:064x}"
    return Fitted(FakeEngine({"sales": 2}, digest=digest), VersionId(f"v{number}", digest))


def reports(handover: Handover) -> list[Report]:
    found = []
    while not handover.inbox.empty():
        found.append(handover.inbox.get_nowait())
    return found


def unused(_: Engine) -> bool:
    return False


def test_an_order_that_did_not_know_of_a_dropped_backup_is_declined() -> None:
    """The backup was quarantined, freed and released again before the loader heard of it: it is about to close it."""
    first, second, handover = versioned(1), versioned(2), Handover()
    slot = EngineSlot(first.engine, handover=handover, versions=[first])
    handover.orders.put(Order(serving=second, backup=first, losses=0))
    slot.turn_over(unused)
    for told in ({first.version: "drifts"}, {}):
        handover.quarantined = MappingProxyType(told)
        slot.turn_over(unused)
    late = Order(serving=first, backup=second, losses=0)
    handover.orders.put(late)
    slot.turn_over(unused)
    assert slot.serving is second.engine
    assert [type(each) for each in reports(handover)] == [Turned, Freed, Declined]
    handover.orders.put(Order(serving=versioned(1), backup=second, losses=1))
    slot.turn_over(unused)
    assert [type(each) for each in reports(handover)] == [Turned]


def test_a_quarantine_is_one_word_in_forecasts_whatever_its_reason_says() -> None:
    first, second = FakeEngine({"sales": 2}), FakeEngine({"sales": 2})
    bad, good = VersionId("2", "dd"), VersionId("1", "ee")
    handover = Handover()
    slot = EngineSlot(first, second, handover=handover, versions=[Fitted(first, bad), Fitted(second, good)])
    handover.quarantined = {bad: "orders doubled"}
    why = slot.turn_over(lambda _: False)
    assert why is not None
    assert "orders doubled" in why
    assert (slot.serving, slot.rolled_back) == (second, QUARANTINED)
