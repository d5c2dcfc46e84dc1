from tests.helpers.engines import FakeEngine
from worker.hotswap import EngineSlot


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
