"""Whether the keys that this worker serves have their forecasts in time, in bounded memory.                      (pure)

The rolling rhythm is: every SKU and store, every hour. For each key of the partitions held now, the time of its last commit
is remembered, by the key's hash: eight bytes that two keys share once in a few billion pairs, which a share doesn't show.
A key is known from its first forecast here on, so after a start or a rebalance the share is of those that have come since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.batching import Batch

COUNT_EVERY_S: Final = 10.0
"""How often the fresh keys are counted: 20 ms for a million of them."""


@dataclass(frozen=True, slots=True)
class FreshKeys:
    """Of `known` keys, `fresh` had a forecast committed within the window. `missed`: forecasts of keys beyond the bound."""

    known: int
    fresh: int
    missed: int

    @property
    def share(self) -> float | None:
        """Fresh among known, 0 to 1; None while none is known."""
        return self.fresh / self.known if self.known else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Served:
    """What is kept of a published batch until its commit: of each row 12 bytes, none of its values."""

    hashes: NDArray[np.int64]
    partitions: NDArray[np.int32]
    withdrawn: Sequence[tuple[int, int]]  # partition, and hash of the key

    @classmethod
    def of(cls, batch: Batch) -> _Served:
        """`withdrawn` are the keys of which no row came after."""
        last_row = {key: row for row, key in enumerate(batch.keys)} if batch.withdrawals else {}
        return cls(
            hashes=np.fromiter(map(hash, batch.keys), np.int64, len(batch.keys)),
            partitions=batch.partitions.copy(),  # not a view of something larger
            withdrawn=[
                (withdrawal.record.partition, hash(key))
                for withdrawal in batch.withdrawals
                if (key := withdrawal.record.key) is not None and last_row.get(key, -1) < withdrawal.after_row
            ],
        )


class Freshness:
    """Last commit of each key. Used from the loop's thread only.

    Args:
        window_s: see `FreshKeys`.
        max_keys: remembers so many; 0 switches it off, and then everything here does nothing.
    """

    def __init__(self, *, window_s: float, max_keys: int) -> None:
        self._window_s = window_s
        self._max_keys = max_keys
        self._last_s: dict[int, dict[int, float]] = {}  # partition -> hash of the key -> time of the commit
        self._pending: list[_Served] = []
        self._missed = 0
        self._counted = FreshKeys(0, 0, 0)
        self._count_due_s = float("-inf")

    def published(self, batch: Batch) -> None:
        """This batch is in the open transaction."""
        if self._max_keys:
            self._pending.append(_Served.of(batch))

    def committed(self, now_s: float) -> None:
        """The open transaction was committed at `now_s`."""
        for served in self._pending:
            self._add(served, now_s)
        self._pending.clear()

    def discarded(self) -> None:
        """The open transaction was aborted."""
        self._pending.clear()

    def keep(self, partitions: Iterable[int]) -> None:
        """These are the partitions now; keys of others are somebody else's."""
        kept = set(partitions)
        self._last_s = {partition: last_s for partition, last_s in self._last_s.items() if partition in kept}

    def keys(self, now_s: float) -> FreshKeys:
        """As counted within the last `COUNT_EVERY_S`."""
        if now_s >= self._count_due_s:
            self._count_due_s = now_s + COUNT_EVERY_S
            since_s = now_s - self._window_s
            known = fresh = 0
            for last_s in self._last_s.values():
                times_s = np.fromiter(last_s.values(), np.float64, len(last_s))
                known += len(times_s)
                fresh += int((times_s >= since_s).sum())
            self._counted = FreshKeys(known, fresh, self._missed)
        return self._counted

    def _add(self, served: _Served, now_s: float) -> None:
        room = self._max_keys - sum(map(len, self._last_s.values()))
        for partition in np.unique(served.partitions).tolist():
            mine = served.hashes[served.partitions == partition].tolist()
            last_s = self._last_s.setdefault(partition, {})
            if len(mine) > room:
                mine, missed = self._fitting(mine, last_s, room)
                self._missed += missed
            before = len(last_s)
            last_s.update(dict.fromkeys(mine, now_s))
            room -= len(last_s) - before
        for partition, hashed in served.withdrawn:
            self._last_s.get(partition, {}).pop(hashed, None)

    @staticmethod
    def _fitting(hashes: list[int], last_s: dict[int, float], room: int) -> tuple[list[int], int]:
        """Those known already, and as many others as there is room for; how many are left out."""
        known = [each for each in hashes if each in last_s]
        new = [each for each in hashes if each not in last_s]
        taken = list(dict.fromkeys(new))[:room]
        left_out = set(new).difference(taken)
        return [*known, *taken], sum(each in left_out for each in new)
