"""Dead letters read back: what is in one, which ones are meant, and what may be sent to the input topic again.

A letter is named by its own position in the dead-letter topic. Pure: no Kafka, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from worker.encode import CUT_HEADER
from worker.framed_reader import FramedReader
from worker.framing import Refusal
from worker.records import Header, Reason, Record

REDRIVEN_FROM = "redriven-from"
"""Header of a redriven record: the position at which it was first rejected, kept however often it is redriven."""
REDRIVE_LETTER = "redrive-letter"
"""Likewise: the position of the dead letter that it was made from."""
REDRIVE_ATTEMPT = "redrive-attempt"
"""Likewise: 1 for the first time."""
REDRIVE_TIMESTAMP = "redrive-original-timestamp"
"""Likewise: the record's own timestamp, if it was sent with a newer one."""
OWN_HEADERS = frozenset({REDRIVEN_FROM, REDRIVE_LETTER, REDRIVE_ATTEMPT, REDRIVE_TIMESTAMP, CUT_HEADER})

_HOUR_MS = 3_600_000
_PLACE = re.compile(r"(?:(?P<topic>[a-zA-Z0-9._-]+)/)?(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """A record's position. As text: topic/partition/offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def place_from_text(text: str, topic: str) -> Place:
    """The position that `text` names: topic/partition/offset, or partition/offset of `topic`. Raises `ValueError`."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError(f"got {text!r}, expected a letter's position: partition/offset or topic/partition/offset")
    return Place(topic=found["topic"] or topic, partition=int(found["partition"]), offset=int(found["offset"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter. `place` is its own, `source` the rejected record's, with its timestamp (-1: none), key and value.

    value_bytes: length of the original value, -1 if that was null; larger than the value here if that was cut. cut: what
    else of the record isn't whole, of `key` and `headers`. headers: the record's own.
    """

    place: Place
    source: Place
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    value_bytes: int
    reason: str
    detail: str
    rejected_at_ms: int
    headers: Sequence[Header] = ()
    cut: frozenset[str] = frozenset()

    @property
    def attempts(self) -> int:
        """How often the record had been redriven when it was rejected this time."""
        found = [value for name, value in self.headers if name == REDRIVE_ATTEMPT]
        text = found[-1] if found else None
        raw = text.encode() if isinstance(text, str) else text or b""
        return int(raw) if raw.isdigit() and len(raw) <= 9 else 0


def letter_of(record: Record, reader: FramedReader) -> Letter | Refusal:
    """The letter in a message of the dead-letter topic; a refusal if it is none.

    `reader`: of the dead letters' schema. Raises `UnreachableError` as that does.
    """
    if record.value is None:
        return Refusal(reason=Reason.NO_KEY_NO_VALUE, detail="got a null value, expected a dead letter")
    content = reader.read(record.value)
    if isinstance(content, Refusal):
        return content
    timestamp_ms = content["timestamp"]
    cut = [value for name, value in record.headers if name == CUT_HEADER]
    return Letter(
        place=Place(topic=record.topic, partition=record.partition, offset=record.offset),
        source=Place(
            topic=str(content["topic"]),
            partition=cast("int", content["partition"]),
            offset=cast("int", content["offset"]),
        ),
        timestamp_ms=-1 if timestamp_ms is None else cast("int", timestamp_ms),
        key=cast("bytes | None", content["key"]),
        value=cast("bytes | None", content["value"]),
        value_bytes=cast("int", content["value_bytes"]),
        reason=str(content["reason"]),
        detail=str(content["detail"]),
        rejected_at_ms=cast("int", content["rejected_at"]),
        headers=tuple(header for header in record.headers if header[0] != CUT_HEADER),
        cut=frozenset(part for value in cut for part in _words(value)),
    )


def _words(value: str | bytes | None) -> list[str]:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return text.split(",") if text else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which letters are meant: those that every given condition holds for; an empty one holds for all.

    partitions: of the rejected record. from_ms, to_ms: when it was rejected, up to and without `to_ms`.
    """

    reasons: frozenset[str] = frozenset()
    partitions: frozenset[int] = frozenset()
    places: frozenset[Place] = frozenset()
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def is_all(self) -> bool:
        """True if nothing is asked of a letter."""
        return self == Selection()

    def has(self, letter: Letter) -> bool:
        """Whether `letter` is meant."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.partitions or letter.source.partition in self.partitions)
            and (not self.places or letter.place in self.places)
            and (self.from_ms is None or letter.rejected_at_ms >= self.from_ms)
            and (self.to_ms is None or letter.rejected_at_ms < self.to_ms)
        )


@dataclass(slots=True, kw_only=True)
class Group:
    """What is known of all letters with one reason. `samples`: the first ones."""

    reason: str
    letters: int = 0
    redriven: int = 0
    first_ms: int = 0
    last_ms: int = 0
    partitions: set[int] = field(default_factory=set)
    samples: list[Letter] = field(default_factory=list)

    def add(self, letter: Letter, *, is_redriven: bool, max_samples: int) -> None:
        """Count it, and keep it if there is room."""
        self.first_ms = letter.rejected_at_ms if not self.letters else min(self.first_ms, letter.rejected_at_ms)
        self.last_ms = letter.rejected_at_ms if not self.letters else max(self.last_ms, letter.rejected_at_ms)
        self.letters += 1
        self.redriven += is_redriven
        self.partitions.add(letter.source.partition)
        if len(self.samples) < max_samples:
            self.samples.append(letter)


def obstacle(letter: Letter, *, topic: str, partitions: int, max_attempts: int | None) -> str | None:
    """Why `letter` can't be redriven to `topic`; None if it can.

    partitions: how many `topic` has. max_attempts: refuse a record that was redriven so often already; None: never mind.
    """
    if letter.source.topic != topic:
        return f"its record is of topic {letter.source.topic}, not of {topic}"
    if letter.value_bytes > len(letter.value or b""):
        return (
            f"its value was cut: {len(letter.value or b'')} of {letter.value_bytes} bytes are here; send the record again "
            f"from its own position, {letter.source}"
        )
    if letter.cut:
        return (
            f"its {' and '.join(sorted(letter.cut))} were cut; send the record again from its own position, "
            f"{letter.source}"
        )
    if letter.source.partition >= partitions:
        return f"partition {letter.source.partition} isn't there: {topic} has {partitions} partitions"
    if max_attempts is not None and letter.attempts >= max_attempts:
        return f"redriven {letter.attempts} times already; --force sends it once more"
    return None


def redriven_headers(letter: Letter, timestamp_ms: int) -> list[Header]:
    """Headers of the record that is sent again with `timestamp_ms`: its own, and where it comes from."""
    own = [header for header in letter.headers if header[0] not in OWN_HEADERS]
    before = dict(letter.headers)
    was_ms = str(letter.timestamp_ms).encode()
    moved = timestamp_ms != letter.timestamp_ms and letter.timestamp_ms >= 0
    original_ms = before.get(REDRIVE_TIMESTAMP) or (was_ms if moved else None)
    return [
        *own,
        (REDRIVEN_FROM, before.get(REDRIVEN_FROM) or str(letter.source).encode()),
        (REDRIVE_LETTER, str(letter.place).encode()),
        (REDRIVE_ATTEMPT, str(letter.attempts + 1).encode()),
        *([(REDRIVE_TIMESTAMP, original_ms)] if original_ms else []),
    ]


def redriven_timestamp_ms(letter: Letter, *, now_ms: int, retention_ms: int | None) -> int:
    """The record's own timestamp where it keeps the record on the topic; else `now_ms`.

    A time in the future is refused by brokers, and a record older than the topic's retention, or by less than an hour
    younger, might be deleted before it is read. `retention_ms` is None if nothing is deleted by age, or nobody knows.
    """
    is_kept = retention_ms is None or letter.timestamp_ms > now_ms - retention_ms + min(_HOUR_MS, retention_ms // 2)
    return letter.timestamp_ms if 0 <= letter.timestamp_ms <= now_ms and is_kept else now_ms
