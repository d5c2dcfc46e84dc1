from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from worker.collector import freeze_objects


class Cyclic:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_full_collections_leave_out_what_was_there() -> None:
    before = Cyclic()
    freeze_objects()
    found = {id(each) for each in gc.get_objects()}
    assert id(before) not in found
    after = Cyclic()
    assert id(after) in {id(each) for each in gc.get_objects()}


def test_garbage_is_collected_first_and_new_garbage_later() -> None:
    old = weakref.ref(Cyclic())
    freeze_objects()
    assert old() is None
    new = weakref.ref(Cyclic())
    gc.collect()
    assert new() is None


def test_what_was_there_is_freed_as_soon_as_nothing_refers_to_it() -> None:
    holder = [Cyclic()]
    freed = weakref.ref(holder[0])
    del holder[0].itself
    freeze_objects()
    holder.clear()
    assert freed() is None
