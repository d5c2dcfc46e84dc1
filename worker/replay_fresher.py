"""Which outputs of a replay may be written to the live topic, so that none buries a fresher forecast.            (pure)

By `as_of`: an event's forecast is written only if the live one is of an earlier day, or if there is none. A key whose live
record is a tombstone stays withdrawn. A tombstone of the input is passed on only over a forecast whose event is older, by
message timestamp. What this replay wrote itself yields to its later events: forecasts of the same day, and tombstones.

Looking first isn't enough, because live workers go on. What they write in between is seen later, in the topic's order, and
put back: their message is written once more, behind ours. On a compacted topic the last one stays.

    live:  fresher        ours is in the open transaction -> the fresher one is put back in the same transaction
    live:  fresher, ours  ours buried it (its transaction was still open when we looked) -> put back in the next one
    live:  ours, fresher  as it should be
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import fastavro

from worker.avro import Schema, record_type_from_schema
from worker.errors import ContractError
from worker.records import Header

_AS_OF: Final = "as_of"


@dataclass(frozen=True, slots=True)
class Live:
    """A record of the live topic. `as_of`: days since 1970; None for a tombstone. `value` is kept where it is needed.

    headers: go with the value. is_ours: this replay computed it, or passed the withdrawal on.
    """

    as_of: int | None
    timestamp_ms: int
    partition: int
    value: bytes | None = None
    headers: Sequence[Header] = ()
    is_ours: bool = False

    def overrules(self, ours: Live) -> bool:
        """Whether this record of others must not lie under `ours`, which may also be one that was put back."""
        if self.is_same(ours):
            return False
        if ours.as_of is not None:
            return self.as_of is None or self.as_of >= ours.as_of
        return self.as_of is not None and self.timestamp_ms >= ours.timestamp_ms

    def is_same(self, other: Live) -> bool:
        """Whether it is the same message, wherever it lies. A tombstone has nothing but its time."""
        if self.as_of is None or other.as_of is None:
            return self.as_of is other.as_of and self.timestamp_ms == other.timestamp_ms
        return self.as_of == other.as_of and self.value == other.value

    def without_value(self) -> Live:
        """As it is kept for each key of the topic."""
        return Live(self.as_of, self.timestamp_ms, self.partition, is_ours=self.is_ours)


class AsOfReader:
    """Reads `as_of` out of a forecast's value.

    schema: of the forecasts. prefix_bytes: what the framing puts before a value. Raises `ContractError` if there is no
    such field, a whole number or a date.
    """

    def __init__(self, schema: Schema, prefix_bytes: int) -> None:
        record = record_type_from_schema(schema)
        field = record.field(_AS_OF)
        if field is None or field.type not in {"int", "long"}:
            raise ContractError(
                f"--to-live: {record.name} has no field {_AS_OF} of type int or long, by which the fresher of two forecasts "
                "is told; replay to a topic of its own instead"
            )
        names = [each.name for each in record.fields]
        leading = [{"name": each.name, "type": each.type} for each in record.fields[: names.index(_AS_OF) + 1]]
        # Nothing behind the field is looked at: reading a whole forecast takes ten times as long.
        self._schema = fastavro.parse_schema({"type": "record", "name": "Leading", "fields": leading})
        self._prefix_bytes = prefix_bytes

    def read(self, value: bytes) -> int:
        """The day. Raises `ValueError` if the value isn't of that schema."""
        try:
            content = fastavro.schemaless_reader(io.BytesIO(value[self._prefix_bytes :]), self._schema, None)
            return int(content[_AS_OF])  # type: ignore[index, call-overload]
        except (EOFError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"isn't a forecast of this schema: {type(error).__name__}: {error}") from error


class Fresher:
    """Decides, and finds what must be put back. `saw` is told what lies on the live topic, in the topic's order.

    A record on the topic is this replay's own if it equals one that it committed and hasn't seen there yet. What was
    seen before an own record lies under it; what is seen when no own one is still to come lies on top.
    """

    def __init__(self) -> None:
        self._live: dict[bytes, Live] = {}  # what will stay, as far as is known; without values
        self._open: dict[bytes, list[Live]] = {}  # produced into the open transaction
        self._awaited: dict[bytes, list[Live]] = {}  # committed by us, not seen yet
        self._passed: dict[bytes, Live] = {}  # the last record of others that was seen while ours were awaited
        self._buried: dict[bytes, Live] = {}  # lie under a committed record of ours
        self._covered: dict[bytes, Live] = {}  # would lie under one of the open transaction

    def __len__(self) -> int:
        """How many keys are known."""
        return len(self._live)

    def may_bury(self, key: bytes) -> bool:
        """Whether the next record of `key` may have to be put back, so that all of it is needed."""
        return key in self._open or key in self._awaited

    def saw(self, key: bytes, live: Live) -> None:
        """The live topic's next committed record of `key`."""
        awaited = self._awaited.get(key, [])
        place = next((place for place, ours in enumerate(awaited) if ours.is_same(live)), None)
        if place is None:
            self._saw_others(key, live, awaited)
        elif place + 1 < len(awaited):
            del awaited[: place + 1]
        else:
            self._saw_our_last(key, awaited[place])

    def allows(self, key: bytes, as_of: int) -> bool:
        """Whether a forecast of that day may be written. Over this replay's own, the later of two events wins."""
        there = self._there(key)
        if there is None:
            return True
        if there.is_ours:
            return there.as_of is None or there.as_of <= as_of
        return there.as_of is not None and there.as_of < as_of

    def allows_withdrawal(self, key: bytes, timestamp_ms: int) -> bool:
        """Whether a tombstone of that time may be written."""
        there = self._there(key)
        if there is None or there.as_of is None:
            return False
        return there.timestamp_ms < timestamp_ms or (there.is_ours and there.timestamp_ms == timestamp_ms)

    def produced(self, key: bytes, ours: Live) -> None:
        """This was produced into the open transaction. Its value is kept until it is seen on the topic."""
        self._open.setdefault(key, []).append(replace(ours, is_ours=True))
        covered = self._covered.get(key)
        if covered is not None and not covered.overrules(ours):
            del self._covered[key]

    def buried(self) -> Sequence[tuple[bytes, Live]]:
        """What must be put back now; it counts as produced. Each is named once, and again if its transaction is aborted."""
        found = [(key, live) for key, live in (self._buried | self._covered).items() if self._is_under(key, live)]
        for key, live in found:
            self._open.setdefault(key, []).append(live)
        return found

    def settled(self, *, committed: bool) -> None:
        """The open transaction ended. Of an aborted one nothing is on the topic, so nothing lies under it."""
        if committed:
            for key, ours in self._open.items():
                self._awaited.setdefault(key, []).extend(ours)
                self._live[key] = ours[-1].without_value()
                under = self._covered.get(key) or self._buried.get(key)
                if under is not None and under.overrules(ours[-1]):
                    self._buried[key] = under
                else:
                    self._buried.pop(key, None)
        self._open.clear()
        self._covered.clear()

    def _saw_others(self, key: bytes, live: Live, awaited: Sequence[Live]) -> None:
        if awaited:
            self._passed[key] = live
        else:
            self._buried.pop(key, None)  # whatever lay under ours, this is on top
        stays = live if not awaited or live.overrules(awaited[-1]) else awaited[-1]
        self._live[key] = stays.without_value()
        if key in self._open:
            self._cover(key, live)

    def _saw_our_last(self, key: bytes, ours: Live) -> None:
        del self._awaited[key]
        passed = self._passed.pop(key, None)
        if passed is None or not passed.overrules(ours):
            self._live[key] = ours.without_value()
            return
        self._buried[key] = passed
        self._live[key] = passed.without_value()

    def _cover(self, key: bytes, live: Live) -> None:
        if self._is_under(key, live):
            self._covered[key] = live
        else:
            self._covered.pop(key, None)

    def _is_under(self, key: bytes, live: Live) -> bool:
        """Whether it is to be written behind what the open transaction has of the key."""
        ours = self._open.get(key)
        return ours is None or live.overrules(ours[-1])

    def _there(self, key: bytes) -> Live | None:
        """What a record of this replay would be written over."""
        if key in self._covered:
            return self._covered[key]
        ours = self._open.get(key)
        return self._live.get(key) if ours is None else ours[-1]
