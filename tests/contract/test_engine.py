"""What every engine promises (worker/engine.py), asked of each implementation in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.engine_card import CARD_NAME, load_card
from tests.helpers.engines import FakeEngine, expected_forecasts
from tests.helpers.faulty_cuda import FaultyCuda
from tests.helpers.gpu_engines import FakeGpu, PlanFolder
from tests.helpers.models import schema_for, tiny_model
from tests.helpers.real_gpu import RealVersion, real_device
from tests.helpers.simulated_cuda_parts import Error
from worker.engine import Engine, Slot, Ticket
from worker.errors import EngineError
from worker.onnx_engine import OnnxEngine
from worker.tensorrt_engine import TensorRtEngine

INPUTS: Mapping[str, int | None] = {"sales": 30, "promo_next": 14, "price": None}
HORIZON = 4
QUANTILES = (0.1, 0.5, 0.9)
MAX_ROWS = 16
SLOTS = 3
TOO_MUCH = 1000
"""A row with inputs beyond this makes its batch fail."""


@dataclass(frozen=True)
class Kind:
    """How to make an engine, and how to make it fail on a batch that it hasn't been given yet."""

    make: Callable[[Path], Engine]
    spoil: Callable[[Engine, Slot], None]


def fake(*, asynchronous: bool) -> Kind:
    def make(_: Path) -> Engine:
        return FakeEngine(
            INPUTS, horizon=HORIZON, quantiles=QUANTILES, max_rows=MAX_ROWS, slots=SLOTS, asynchronous=asynchronous
        )

    def spoil(engine: Engine, _: Slot) -> None:
        assert isinstance(engine, FakeEngine)
        engine.fail_collect = [EngineError("spoilt")]

    return Kind(make, spoil)


def onnx_engine(folder: Path) -> Engine:
    tiny_model(folder, inputs=INPUTS, horizon=HORIZON, quantiles=QUANTILES, max_rows=MAX_ROWS, fails_above=TOO_MUCH)
    card = load_card(folder / CARD_NAME)
    return OnnxEngine.load(folder / "model.onnx", card, schema_for(INPUTS), slots=SLOTS, max_rows=MAX_ROWS, threads=1)


def overflow(_: Engine, slot: Slot) -> None:
    slot.columns["price"][0] = 2 * TOO_MUCH


def on_fake_gpu(*, modern: bool, profiles: Sequence[tuple[int, int, int]], graph_rows: tuple[int, ...]) -> Kind:
    """The engine for TensorRT, on a fake of CUDA and of TensorRT."""

    def make(folder: Path) -> Engine:
        gpu = FakeGpu(modern=modern)
        version = PlanFolder(folder, INPUTS, HORIZON, QUANTILES, profiles=profiles, graph_rows=graph_rows)
        return version.load(gpu, slots=SLOTS, max_rows=MAX_ROWS)

    return Kind(make, spoil_event)


def on_this_gpu(folder: Path) -> Engine:
    """Real TensorRT; skipped where no GPU is."""
    device = real_device()
    version = RealVersion(folder, INPUTS, HORIZON, QUANTILES, profiles=((1, 8, MAX_ROWS),), graph_rows=(2, 8))
    return version.load(device, slots=SLOTS, max_rows=MAX_ROWS)


def spoil_event(engine: Engine, slot: Slot) -> None:
    """Asking for the batch of this slot fails, by an error that leaves the GPU usable."""
    assert isinstance(engine, TensorRtEngine)
    api = engine._cuda._api
    assert isinstance(api, FaultyCuda)
    event = engine._lanes[slot.index].event
    api.fail(Error.cudaErrorLaunchOutOfResources, name="cudaEventSynchronize", argument=event)


KINDS = {
    "fake": fake(asynchronous=False),
    "fake-asynchronous": fake(asynchronous=True),
    "onnx": Kind(onnx_engine, overflow),
    "tensorrt-8-on-fake-cuda": on_fake_gpu(modern=False, profiles=[(1, 8, MAX_ROWS)], graph_rows=()),
    "tensorrt-10-on-fake-cuda": on_fake_gpu(modern=True, profiles=[(1, 2, 4), (6, 8, 64)], graph_rows=(2, 8)),
    "tensorrt": Kind(on_this_gpu, spoil_event),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def engine(kind: Kind, tmp_path: Path) -> Iterator[Engine]:
    made = kind.make(tmp_path)
    yield made
    made.close()


def rows_of(seed: int, rows: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: random.uniform(0.0, 50.0, rows if width is None else (rows, width)).astype(np.float32)
        for name, width in INPUTS.items()
    }


def acquired(engine: Engine) -> Slot:
    slot = engine.acquire()
    assert slot is not None
    return slot


def filled(engine: Engine, content: Mapping[str, NDArray[np.float32]]) -> Slot:
    slot = acquired(engine)
    for name, values in content.items():
        slot.columns[name][: len(values)] = values
    return slot


def forecast(engine: Engine, content: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """A copy of what the engine makes of one batch, with the slot given back."""
    rows = len(content["price"])
    slot = filled(engine, content)
    values = engine.collect(engine.submit(slot, rows)).values.copy()
    engine.release(slot)
    return values


def expected(content: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return expected_forecasts(content, len(content["price"]), horizon=HORIZON, quantiles=QUANTILES)


def test_says_what_it_takes_and_gives(engine: Engine) -> None:
    spec = engine.spec
    assert dict(spec.inputs) == dict(INPUTS)
    assert (spec.horizon, spec.quantiles, spec.max_rows) == (HORIZON, QUANTILES, MAX_ROWS)
    assert len(spec.digest) == 64
    assert engine.spec is spec


def test_slots_have_room_for_the_largest_batch(engine: Engine) -> None:
    columns = acquired(engine).columns
    assert {name: column.shape for name, column in columns.items()} == {
        "sales": (MAX_ROWS, 30),
        "promo_next": (MAX_ROWS, 14),
        "price": (MAX_ROWS,),
    }
    for column in columns.values():
        assert column.dtype == np.float32
        assert column.flags.writeable


@pytest.mark.parametrize("rows", [1, 2, 7, MAX_ROWS - 1, MAX_ROWS])
def test_gives_a_forecast_for_every_row(engine: Engine, rows: int) -> None:
    content = rows_of(rows, rows)
    values = forecast(engine, content)
    assert values.shape == (rows, HORIZON, len(QUANTILES))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected(content), rtol=1e-5)


def test_forecasts_say_which_engine_made_them(engine: Engine) -> None:
    slot = filled(engine, rows_of(0, 1))
    assert engine.collect(engine.submit(slot, 1)).spec is engine.spec


def test_slots_of_a_batch_are_as_many_as_agreed_and_never_shared(engine: Engine) -> None:
    slots = [acquired(engine) for _ in range(SLOTS)]
    assert engine.acquire() is None
    columns = [column for slot in slots for column in slot.columns.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(columns) for b in columns[:i])
    engine.release(slots[1])
    assert acquired(engine).index == slots[1].index
    assert engine.acquire() is None


def test_slots_come_back_without_being_used(engine: Engine) -> None:
    for _ in range(10):
        for slot in [acquired(engine) for _ in range(SLOTS)]:
            engine.release(slot)


def test_a_slot_is_free_only_when_it_was_released(engine: Engine) -> None:
    slots = [filled(engine, rows_of(i, 2)) for i in range(SLOTS)]
    tickets = [engine.submit(slot, 2) for slot in slots]
    assert engine.acquire() is None
    engine.collect(tickets[0])
    assert engine.acquire() is None
    engine.release(slots[0])
    assert engine.acquire() is not None


def test_results_come_in_the_order_of_submission(engine: Engine) -> None:
    contents = [rows_of(i, i + 1) for i in range(SLOTS)]
    tickets = [engine.submit(filled(engine, each), len(each["price"])) for each in contents]
    assert [ticket.sequence for ticket in tickets] == sorted(ticket.sequence for ticket in tickets)
    for wrong in tickets[1:]:
        with pytest.raises(ValueError, match="oldest outstanding"):
            engine.collect(wrong)
    for ticket, content in zip(tickets, contents, strict=True):
        np.testing.assert_allclose(engine.collect(ticket).values, expected(content), rtol=1e-5)
        engine.release(ticket.slot)


def test_a_result_stays_while_others_are_computed(engine: Engine) -> None:
    content = rows_of(1, 3)
    kept = engine.collect(engine.submit(filled(engine, content), 3)).values
    for seed in range(2, 6):
        forecast(engine, rows_of(seed, MAX_ROWS))
    np.testing.assert_allclose(kept, expected(content), rtol=1e-5)


def test_a_ticket_is_collected_once_and_only_where_it_came_from(engine: Engine) -> None:
    slot = filled(engine, rows_of(0, 1))
    ticket = engine.submit(slot, 1)
    with pytest.raises(ValueError, match="oldest outstanding"):
        engine.collect(Ticket(slot, 1, ticket.sequence))
    engine.collect(ticket)
    with pytest.raises(ValueError, match="oldest outstanding"):
        engine.collect(ticket)


def test_what_is_ready_is_there_after_waiting(engine: Engine) -> None:
    ticket = engine.submit(filled(engine, rows_of(0, 1)), 1)
    if isinstance(engine, FakeEngine):
        engine.finish()
    assert engine.wait(ticket, 60.0)
    assert engine.wait(ticket, 0.0)
    engine.collect(ticket)


@pytest.mark.parametrize("rows", [-1, 0, MAX_ROWS + 1])
def test_wrong_sizes_are_refused_and_the_slot_stays_the_callers(engine: Engine, rows: int) -> None:
    content = rows_of(0, 1)
    slot = filled(engine, content)
    with pytest.raises(ValueError, match=f"rows: got {rows}, expected 1 to {MAX_ROWS}"):
        engine.submit(slot, rows)
    np.testing.assert_allclose(engine.collect(engine.submit(slot, 1)).values, expected(content), rtol=1e-5)
    engine.release(slot)


def test_slots_of_nobody_are_refused(engine: Engine) -> None:
    slot = acquired(engine)
    stranger = Slot(slot.index, slot.columns)
    engine.release(slot)
    for wrong in (slot, stranger):
        with pytest.raises(ValueError, match="wasn't acquired"):
            engine.submit(wrong, 1)
        with pytest.raises(ValueError, match="wasn't acquired"):
            engine.release(wrong)


def test_a_slot_of_another_engine_is_refused(engine: Engine, kind: Kind, tmp_path: Path) -> None:
    other = kind.make(tmp_path / "other")
    acquired(engine)
    with pytest.raises(ValueError, match="wasn't acquired"):
        engine.submit(acquired(other), 1)
    other.close()


def test_a_slot_is_the_engines_until_its_result_was_collected(engine: Engine) -> None:
    slot = filled(engine, rows_of(0, 2))
    ticket = engine.submit(slot, 2)
    with pytest.raises(ValueError, match="the engine's until"):
        engine.submit(slot, 1)
    with pytest.raises(ValueError, match="the engine's until"):
        engine.release(slot)
    engine.collect(ticket)
    engine.release(slot)


def test_a_row_does_not_depend_on_its_batch_mates(engine: Engine) -> None:
    """Invariant 13; the stated tolerance is 1e-5 of the value."""
    content = rows_of(3, MAX_ROWS)
    together = forecast(engine, content)
    for rows in (1, 3, 5):
        for first in range(0, MAX_ROWS - rows + 1, rows):
            part = {name: values[first : first + rows] for name, values in content.items()}
            np.testing.assert_allclose(forecast(engine, part), together[first : first + rows], rtol=1e-5)
    backwards = forecast(engine, {name: values[::-1] for name, values in content.items()})
    np.testing.assert_allclose(backwards[::-1], together, rtol=1e-5)


@pytest.mark.parametrize("stale", [0.0, 1e30, float("nan"), float("inf")])
def test_what_lies_beyond_the_rows_does_not_matter(engine: Engine, stale: float) -> None:
    content = rows_of(4, 5)
    slot = filled(engine, content)
    for column in slot.columns.values():
        column[5:] = stale
    values = engine.collect(engine.submit(slot, 5)).values
    np.testing.assert_allclose(values, expected(content), rtol=1e-5)


def test_a_batch_that_fails_is_told_in_its_turn_and_the_engine_goes_on(engine: Engine, kind: Kind) -> None:
    good = rows_of(5, 2)
    before = engine.submit(filled(engine, good), 2)
    slot = filled(engine, rows_of(6, 2))
    kind.spoil(engine, slot)
    broken = engine.submit(slot, 2)
    after = engine.submit(filled(engine, good), 2)
    np.testing.assert_allclose(engine.collect(before).values, expected(good), rtol=1e-5)
    with pytest.raises(EngineError):
        engine.collect(broken)
    np.testing.assert_allclose(engine.collect(after).values, expected(good), rtol=1e-5)
    engine.release(slot)  # it is the caller's again
    np.testing.assert_allclose(forecast(engine, good), expected(good), rtol=1e-5)


def test_closing_twice_is_closing_once_and_tickets_are_lost(engine: Engine) -> None:
    idle = acquired(engine)
    ticket = engine.submit(filled(engine, rows_of(0, 1)), 1)
    engine.close()
    engine.close()
    with pytest.raises(ValueError, match="oldest outstanding"):
        engine.collect(ticket)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(idle, 1)
