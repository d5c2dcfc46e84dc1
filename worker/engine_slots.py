"""An engine's slots: which are free, which are its user's, and which wait with a batch for their result.           (pure)

Both engines keep this book the same way; what they keep beside it is only how a batch is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from worker.engine import Slot, Ticket


class Slots:
    """The slots of one engine. A slot goes round: free -> `acquire` -> `submitted` -> `collected` -> `release` -> free.

    Args:
        slots: all there are, free; each with an index of its own.
        max_rows: the most that a batch may have.
    """

    def __init__(self, slots: Iterable[Slot], max_rows: int) -> None:
        self._free = list(slots)
        self._max_rows = max_rows
        self._taken: dict[int, Slot] = {}
        self._outstanding: deque[Ticket] = deque()
        self._submitted = 0

    def acquire(self) -> Slot | None:
        """See `Engine.acquire`."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._taken[slot.index] = slot
        return slot

    def require(self, slot: Slot, rows: int) -> None:
        """Raise `ValueError` unless `rows` rows of `slot` may be submitted."""
        self._require_taken(slot)
        if not 1 <= rows <= self._max_rows:
            raise ValueError(f"rows: got {rows}, expected 1 to {self._max_rows}")

    def submitted(self, slot: Slot, rows: int) -> Ticket:
        """`rows` rows of `slot` are the engine's from now on. After `require`."""
        ticket = Ticket(slot, rows, self._submitted)
        self._submitted += 1
        self._outstanding.append(ticket)
        return ticket

    def collected(self, ticket: Ticket) -> None:
        """The slot is its user's again. Raises `ValueError` if `ticket` isn't the oldest one outstanding."""
        if not self._outstanding or self._outstanding[0] is not ticket:
            raise ValueError(f"ticket {ticket.sequence} isn't the oldest outstanding one")
        self._outstanding.popleft()

    def release(self, slot: Slot) -> None:
        """See `Engine.release`."""
        self._require_taken(slot)
        del self._taken[slot.index]
        self._free.append(slot)

    def clear(self) -> None:
        """No slot is free, and no ticket is outstanding, any more."""
        self._free.clear()
        self._outstanding.clear()

    def _require_taken(self, slot: Slot) -> None:
        """Raise `ValueError` unless the slot is its user's."""
        if self._taken.get(slot.index) is not slot:
            raise ValueError(f"slot {slot.index} wasn't acquired from this engine")
        if any(ticket.slot is slot for ticket in self._outstanding):
            raise ValueError(f"slot {slot.index} is the engine's until its ticket was collected")
