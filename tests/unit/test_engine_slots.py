"""The book that both engines keep; what an engine promises with it is asked in tests/contract/test_engine.py."""

from __future__ import annotations

import re

import pytest

from worker.engine import Slot, Ticket
from worker.engine_slots import Slots


def book(count: int = 2, max_rows: int = 4) -> Slots:
    return Slots((Slot(index, {}) for index in range(count)), max_rows)


def acquired(slots: Slots) -> Slot:
    slot = slots.acquire()
    assert slot is not None
    return slot


def test_there_are_as_many_as_were_given_and_each_is_given_out_once() -> None:
    slots = book()
    assert {acquired(slots).index, acquired(slots).index} == {0, 1}
    assert slots.acquire() is None


def test_what_is_released_is_free_again() -> None:
    slots = book(1)
    slot = acquired(slots)
    slots.release(slot)
    assert slots.acquire() is slot


@pytest.mark.parametrize("rows", [0, 5, -1])
def test_a_batch_that_is_too_small_or_large_is_refused(rows: int) -> None:
    slots = book()
    with pytest.raises(ValueError, match=re.escape(f"rows: got {rows}, expected 1 to 4")):
        slots.require(acquired(slots), rows)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_ends_of_the_range_are_allowed(rows: int) -> None:
    slots = book()
    slots.require(acquired(slots), rows)


def test_a_slot_of_nobody_is_refused() -> None:
    slots = book()
    stranger = Slot(acquired(slots).index, {})
    with pytest.raises(ValueError, match="wasn't acquired from this engine"):
        slots.require(stranger, 1)
    with pytest.raises(ValueError, match="wasn't acquired from this engine"):
        slots.release(stranger)


def test_a_slot_is_the_engines_from_submission_to_collection() -> None:
    slots = book()
    slot = acquired(slots)
    ticket = slots.submitted(slot, 1)
    with pytest.raises(ValueError, match=f"slot {slot.index} is the engine's until its ticket was collected"):
        slots.require(slot, 1)
    with pytest.raises(ValueError, match=f"slot {slot.index} is the engine's until its ticket was collected"):
        slots.release(slot)
    slots.collected(ticket)
    slots.require(slot, 1)
    slots.release(slot)


def test_tickets_are_numbered_and_collected_in_their_order() -> None:
    slots = book()
    first, second = (slots.submitted(acquired(slots), rows) for rows in (3, 4))
    assert [(each.sequence, each.rows) for each in (first, second)] == [(0, 3), (1, 4)]
    with pytest.raises(ValueError, match="ticket 1 isn't the oldest outstanding one"):
        slots.collected(second)
    slots.collected(first)
    with pytest.raises(ValueError, match="ticket 0 isn't the oldest"):
        slots.collected(first)
    slots.collected(second)


def test_a_ticket_that_only_looks_like_it_is_refused() -> None:
    slots = book()
    ticket = slots.submitted(acquired(slots), 1)
    with pytest.raises(ValueError, match="isn't the oldest outstanding one"):
        slots.collected(Ticket(ticket.slot, 1, 0))


def test_a_cleared_book_gives_nothing_out_and_expects_nothing() -> None:
    slots = book()
    ticket = slots.submitted(acquired(slots), 1)
    slots.clear()
    assert slots.acquire() is None
    with pytest.raises(ValueError, match="isn't the oldest outstanding one"):
        slots.collected(ticket)
