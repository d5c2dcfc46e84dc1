"""Which dead letters were redriven: a compacted topic with one record for each, written in the redrive's own transactions.

Committed offsets couldn't say it: a redrive with a filter takes letters out of the middle. Key: the letter's position.
Value, JSON: when the letter was written (a topic that was deleted and made anew uses its positions again), the position
that the record was first rejected at, the attempt, and when it was redriven. Pure: no Kafka, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from worker.dead_letters import Letter
from worker.records import Record

LEDGER_SUFFIX = ".redriven"
LEDGER_CONFIG = {"cleanup.policy": "compact"}


class Ledger:
    """The letters that were redriven."""

    def __init__(self) -> None:
        self._rejected_at_ms: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rejected_at_ms)

    def __contains__(self, letter: Letter) -> bool:
        return self._rejected_at_ms.get(str(letter.place)) == letter.rejected_at_ms

    @classmethod
    def of(cls, records: Iterable[Record]) -> Ledger:
        """What the ledger topic says, its records in order. Entries that aren't ours are passed over."""
        ledger = cls()
        for record in records:
            try:
                place = (record.key or b"").decode()
                content = json.loads(record.value or b"null")
            except ValueError:
                continue
            if isinstance(content, dict) and isinstance(content.get("rejected_at"), int):
                ledger._rejected_at_ms[place] = content["rejected_at"]
        return ledger

    def add(self, letter: Letter) -> None:
        """It is redriven now."""
        self._rejected_at_ms[str(letter.place)] = letter.rejected_at_ms


def entry(letter: Letter, *, redriven_at_ms: int) -> tuple[bytes, bytes]:
    """Key and value of the ledger's record for `letter`."""
    content = {
        "rejected_at": letter.rejected_at_ms,
        "source": str(letter.source),
        "attempt": letter.attempts + 1,
        "redriven_at": redriven_at_ms,
    }
    return str(letter.place).encode(), json.dumps(content).encode()
