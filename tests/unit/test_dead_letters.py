from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.load import load_schema
from tests.helpers.clock import ManualClock
from worker.dead_letters import (
    REDRIVE_ATTEMPT,
    REDRIVE_LETTER,
    REDRIVE_TIMESTAMP,
    REDRIVEN_FROM,
    Group,
    Letter,
    Place,
    Selection,
    letter_of,
    obstacle,
    place_from_text,
    redriven_headers,
    redriven_timestamp_ms,
)
from worker.dead_letters_text import group_lines, groups_json, letter_json, letter_lines, redriven_lines
from worker.deadline import Deadline
from worker.encode import CUT_HEADER, DeadLetterEncoder
from worker.errors import AbortableError
from worker.framed_reader import FramedReader
from worker.framing import Refusal, SingleObjectFraming
from worker.ledger import Ledger, entry
from worker.records import Header, Reason, Record, Rejection
from worker.redrive import MAX_TRIES, Redrive, Target
from worker.transaction import Outgoing

SCHEMA = load_schema(None, "dead_letter")
FRAMING = SingleObjectFraming([SCHEMA])
HOUR_MS = 3_600_000


def letter(offset: int = 0, **changes: object) -> Letter:
    made = Letter(
        place=Place(topic="dead", partition=1, offset=offset),
        source=Place(topic="in", partition=1, offset=100 + offset),
        timestamp_ms=5000,
        key=b"k",
        value=b"value",
        value_bytes=5,
        reason="malformed",
        detail="why",
        rejected_at_ms=9000 + offset,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


records = st.builds(
    Record,
    topic=st.just("in"),
    partition=st.integers(0, 9),
    offset=st.integers(0, 2**60),
    timestamp_ms=st.integers(-1, 10**13),
    key=st.none() | st.binary(max_size=900),
    value=st.none() | st.binary(max_size=6000),
    headers=st.lists(st.tuples(st.text(max_size=9), st.none() | st.binary(max_size=900)), max_size=4).map(tuple),
)


@given(records)
def test_a_letter_reads_back_as_the_record_or_says_what_it_lost(record: Record) -> None:
    limit = 8000
    encoder = DeadLetterEncoder(SCHEMA, FRAMING.prefix_for(SCHEMA), max_value_bytes=5000, max_message_bytes=limit)
    value = encoder.encode(Rejection(record=record, reason=Reason.MALFORMED, detail="d"), rejected_at_ms=7)
    headers = encoder.headers(record)
    size = len(value) + len(encoder.key(record) or b"") + sum(len(n.encode()) + len(v or b"") for n, v in headers)
    assert size <= limit
    message = Record(topic="dead", partition=2, offset=5, timestamp_ms=7, key=None, value=value, headers=headers)
    found = letter_of(message, FramedReader(SCHEMA, FRAMING))
    assert isinstance(found, Letter)
    assert found.place == Place(topic="dead", partition=2, offset=5)
    assert (found.source.partition, found.source.offset, found.reason) == (record.partition, record.offset, "malformed")
    assert found.key == record.key or "key" in found.cut
    assert list(found.headers) == [h for h in record.headers if h[0] != CUT_HEADER] or "headers" in found.cut
    assert found.value == record.value or found.value_bytes > len(found.value or b"")
    assert found.timestamp_ms == record.timestamp_ms
    is_whole = found.value == record.value and not found.cut
    assert (obstacle(found, topic="in", partitions=10, max_attempts=None) is None) == is_whole


@pytest.mark.parametrize("value", [None, b"", b"\xc3\x01 something else entirely"])
def test_what_is_no_letter_is_refused(value: bytes | None) -> None:
    message = Record(topic="dead", partition=0, offset=0, timestamp_ms=0, key=None, value=value)
    assert isinstance(letter_of(message, FramedReader(SCHEMA, FRAMING)), Refusal)


def test_places() -> None:
    assert (
        place_from_text("3/17", "dead")
        == place_from_text("dead/3/17", "x")
        == Place(topic="dead", partition=3, offset=17)
    )
    for wrong in ("", "3", "a/b", "3/-1", "dead//1"):
        with pytest.raises(ValueError, match="expected a letter's position"):
            place_from_text(wrong, "dead")


def test_conditions_hold_together() -> None:
    assert Selection().is_all
    assert Selection().has(letter())
    good = Selection(
        reasons=frozenset({"malformed"}),
        partitions=frozenset({1}),
        places=frozenset({letter().place}),
        from_ms=9000,
        to_ms=9001,
    )
    assert good.has(letter())
    assert not good.is_all
    for changes in ({"reason": "x"}, {"rejected_at_ms": 8999}, {"rejected_at_ms": 9001}, {"place": letter(1).place}):
        assert not good.has(letter(**changes))
    assert not good.has(letter(source=Place(topic="in", partition=0, offset=1)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"value": None, "value_bytes": -1}, None),
        (
            {"value_bytes": 6},
            "its value was cut: 5 of 6 bytes are here; send the record again from its own position, in/1/100",
        ),
        ({"cut": frozenset({"key"})}, "its key were cut"),
        ({"source": Place(topic="other", partition=1, offset=1)}, "its record is of topic other, not of in"),
        ({"source": Place(topic="in", partition=4, offset=1)}, "partition 4 isn't there: in has 4 partitions"),
        ({"headers": ((REDRIVE_ATTEMPT, b"3"),)}, "redriven 3 times already; --force"),
        ({"headers": ((REDRIVE_ATTEMPT, b"2"),)}, None),
        ({"headers": ((REDRIVE_ATTEMPT, b"many"),)}, None),
    ],
)
def test_what_keeps_a_letter_from_being_redriven(changes: dict[str, object], why: str | None) -> None:
    found = obstacle(letter(**changes), topic="in", partitions=4, max_attempts=3)  # type: ignore[arg-type]
    assert found == why or (why is not None and found is not None and found.startswith(why))


def test_headers_keep_the_first_position_and_count() -> None:
    own: list[Header] = [("traceparent", b"00"), ("traceparent", None)]
    first = redriven_headers(letter(headers=own), 5000)
    assert first == [*own, (REDRIVEN_FROM, b"in/1/100"), (REDRIVE_LETTER, b"dead/1/0"), (REDRIVE_ATTEMPT, b"1")]
    again = letter(7, headers=first)
    assert redriven_headers(again, 6000) == [
        *own,
        (REDRIVEN_FROM, b"in/1/100"),
        (REDRIVE_LETTER, b"dead/1/7"),
        (REDRIVE_ATTEMPT, b"2"),
        (REDRIVE_TIMESTAMP, b"5000"),
    ]


@pytest.mark.parametrize(
    ("timestamp_ms", "retention_ms", "expected"),
    [
        (5000, None, 5000),
        (-1, None, 10 * HOUR_MS),
        (11 * HOUR_MS, None, 10 * HOUR_MS),
        (9 * HOUR_MS, 5 * HOUR_MS, 9 * HOUR_MS),
        (6 * HOUR_MS, 5 * HOUR_MS, 10 * HOUR_MS),
        (4 * HOUR_MS, 5 * HOUR_MS, 10 * HOUR_MS),
    ],
)
def test_the_timestamp_is_kept_where_it_keeps_the_record(
    timestamp_ms: int, retention_ms: int | None, expected: int
) -> None:
    found = redriven_timestamp_ms(letter(timestamp_ms=timestamp_ms), now_ms=10 * HOUR_MS, retention_ms=retention_ms)
    assert found == expected


def test_the_ledger_knows_letters_by_place_and_time() -> None:
    key, value = entry(letter(), redriven_at_ms=1)
    noise = [(b"x", b"no json"), (b"\xff", b"{}"), (b"y", b"[]"), (None, None), (key, value)]
    ledger = Ledger.of(
        Record(topic="l", partition=0, offset=i, timestamp_ms=0, key=k, value=v) for i, (k, v) in enumerate(noise)
    )
    assert len(ledger) == 1
    assert letter() in ledger
    assert letter(1) not in ledger
    assert letter(rejected_at_ms=1) not in ledger  # another topic of that name


class Outbox:
    """Transactions in memory; `fails` of the first commits are aborted."""

    def __init__(self, fails: int = 0) -> None:
        self.open: list[Outgoing] = []
        self.committed: list[list[Outgoing]] = []
        self.fails = fails

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        assert not deadline.expired
        self.open.append(outgoing)

    def commit_outputs(self, deadline: Deadline) -> None:  # noqa: ARG002
        if self.fails:
            self.fails -= 1
            raise AbortableError("aborted")
        self.committed.append(self.open)
        self.open = []

    def abort(self, deadline: Deadline) -> None:  # noqa: ARG002
        self.open = []


def redrive(outbox: Outbox, ledger: Ledger) -> Redrive:
    target = Target(topic="in", partitions=4, retention_ms=None, ledger_topic="dead.redriven", max_attempts=3)
    return Redrive(
        outbox=outbox, ledger=ledger, target=target, timeout_s=9.0, clock=ManualClock(), wall_clock_ms=lambda: 10**6
    )


def sent(outbox: Outbox, topic: str) -> Sequence[bytes | None]:
    return [value for part in outbox.committed for out in part if out.topic == topic for value in out.values]


def test_letters_and_notes_go_together_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.redrive.CHUNK_LETTERS", 4)
    outbox, ledger = Outbox(fails=2), Ledger()
    ledger.add(letter(3))
    letters = [letter(i, value=b"%d" % i, value_bytes=1) for i in range(9)] + [letter(50, value_bytes=99)]
    found = redrive(outbox, ledger).run(letters)
    assert (found.redriven, found.already, found.refused, found.reasons) == (8, 1, 1, {"malformed": 8})
    assert [[out.topic for out in part] for part in outbox.committed] == [["in", "dead.redriven"]] * 2
    assert sent(outbox, "in") == [b"%d" % i for i in range(9) if i != 3]
    assert redrive(outbox, ledger).run(letters).redriven == 0
    text = redriven_lines(found, "in", 2, is_dry=False)
    assert "8 letters redriven to in" in text
    assert "dead/1/50: its value was cut" in text
    assert text.endswith("2 messages of the topic are no dead letters that can be read")


def test_a_limit_and_large_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.redrive.CHUNK_BYTES", 15)
    outbox = Outbox()
    assert redrive(outbox, Ledger()).run([letter(i) for i in range(9)], limit=5).redriven == 5
    assert [len(part[0].values) for part in outbox.committed] == [2, 2, 1]


def test_a_transaction_that_is_aborted_for_ever_is_an_error() -> None:
    outbox, ledger = Outbox(fails=MAX_TRIES), Ledger()
    with pytest.raises(AbortableError):
        redrive(outbox, ledger).run([letter()])
    assert not outbox.committed
    assert letter() not in ledger


def test_texts() -> None:
    group = Group(reason="malformed")
    for offset in (4, 1, 2):
        group.add(
            letter(offset, source=Place(topic="in", partition=offset, offset=0)), is_redriven=offset == 1, max_samples=1
        )
    text = group_lines("dead", [group], 0)
    assert "1-2, 4" in text
    assert "  1/4  in/4/0  why" in text
    assert '"first_ms": 9001' in groups_json("dead", [group], 0)
    assert group_lines("dead", [], 0) == "no dead letters in dead that the conditions hold for"
    refusal = Refusal(reason=Reason.BAD_MAGIC, detail="no magic")
    large = letter(value=b"A" * 2000, value_bytes=3000, key=b"\xff", cut=frozenset({"key"}), headers=(("h", b"1"),))
    text = letter_lines(large, refusal)
    assert "3,000 bytes, of which 2,000 are here" in text
    assert "key          hex ff (cut)" in text
    assert "976 more bytes; --save" in text
    assert '"content_problem": "no magic"' in letter_json(large, refusal)
    assert "  price: 1.5" in letter_lines(letter(), {"price": 1.5, "sku": "x"})
