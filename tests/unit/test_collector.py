from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.gpu_engines import FakeGpu, PlanFolder
from tests.helpers.models import tiny_model
from tests.unit.test_onnx_engine import load
from worker.collector import freeze_objects
from worker.engine import Engine


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


def test_engines_of_the_start_go_by_their_references_alone(tmp_path: Path) -> None:
    """The first version's engines are frozen, and leave at a swap."""
    gpu = FakeGpu()
    engines: list[Engine] = [PlanFolder(tmp_path / "plan").load(gpu), load(tiny_model(tmp_path / "model"))]
    freeze_objects()
    gc.disable()
    try:
        left = [weakref.ref(engine) for engine in engines]
        while engines:
            engines.pop().close()
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()
    gpu.assert_empty()
