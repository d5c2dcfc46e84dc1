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
