"""Which outputs of a replay may be written to the live topic, so that none buries a fresher forecast.            (pure)

By `as_of`: an event's forecast is written only if the live one is of an earlier day, or if there is none. A key whose live
record is a tombstone stays withdrawn. A tombstone of the input is passed on only over a forecast whose event is older, by
message timestamp.

Looking first isn't enough, because live workers go on. What they write in between is seen later, in the topic's order, and
put back: their message is written once more, behind ours. On a compacted topic the last one stays.

    live:  fresher        ours is in the open transaction -> the fresher one is put back in the same transaction
    live:  fresher, ours  ours buried it (its transaction was still open when we looked) -> put back in the next one
    live:  ours, fresher  as it should be
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import fastavro

from worker.avro import Schema, record_type_from_schema
from worker.errors import ContractError

_AS_OF: Final = "as_of"


@dataclass(frozen=True, slots=True)
class Live:
    """A record of the live topic. `as_of`: days since 1970; None for a tombstone. `value` is kept where it is needed."""

    as_of: int | None
    timestamp_ms: int
    partition: int
    value: bytes | None = None

    def is_as_fresh_as(self, as_of: int) -> bool:
        """Whether a forecast of that day mustn't take its place."""
        return self.as_of is None or self.as_of >= as_of


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
    """Decides, and finds what must be put back. `saw` is told what lies on the live topic, in the topic's order."""

    def __init__(self) -> None:
        self._live: dict[bytes, Live] = {}
        self._open: dict[bytes, Live] = {}
        self._written: dict[bytes, int] = {}  # key -> as_of that we committed
        self._passed: dict[bytes, Live] = {}  # fresher records that came after we wrote the key
        self._buried: dict[bytes, Live] = {}
        self._restored: dict[bytes, Live] = {}  # put back in the open transaction

    def __len__(self) -> int:
        """How many keys are known."""
        return len(self._live)

    def saw(self, key: bytes, live: Live) -> None:
        """The live topic's next committed record of `key`."""
        self._live[key] = Live(live.as_of, live.timestamp_ms, live.partition)
        ours = self._open.get(key)
        if ours is not None and ours.as_of is not None and live.is_as_fresh_as(ours.as_of):
            self._buried[key] = live
        written = self._written.get(key)
        if written is None:
            return
        if live.as_of is None or live.as_of > written:
            self._passed[key] = live
            if ours is None:
                self._buried.pop(key, None)
        elif live.as_of == written and key in self._passed:
            self._buried[key] = self._passed[key]

    def allows(self, key: bytes, as_of: int) -> bool:
        """Whether a forecast of that day may be written."""
        there = self._open.get(key) or self._live.get(key)
        return there is None or not there.is_as_fresh_as(as_of)

    def allows_withdrawal(self, key: bytes, timestamp_ms: int) -> bool:
        """Whether a tombstone of that time may be written."""
        there = self._open.get(key) or self._live.get(key)
        return there is not None and there.as_of is not None and there.timestamp_ms < timestamp_ms

    def produced(self, key: bytes, ours: Live) -> None:
        """This was produced into the open transaction."""
        self._open[key] = ours

    def buried(self) -> Sequence[tuple[bytes, Live]]:
        """What must be put back now. Each is named once."""
        found = list(self._buried.items())
        self._buried.clear()
        for key, live in found:
            self._open[key] = self._restored[key] = live
        return found

    def settled(self, *, committed: bool) -> None:
        """The open transaction ended. What it was to put back after an earlier one, it must if it was aborted."""
        if committed:
            for key, there in self._open.items():
                self._live[key] = Live(there.as_of, there.timestamp_ms, there.partition)
                if there.as_of is not None and key not in self._restored:
                    self._written[key] = there.as_of
        else:
            self._buried |= {key: live for key, live in self._restored.items() if key in self._written}
        self._open.clear()
        self._restored.clear()
