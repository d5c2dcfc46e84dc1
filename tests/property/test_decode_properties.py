from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.avro import Case, Json, decode, encoded, one_by_one, oracle, records_of
from tests.helpers.avro_strategies import cases

SLOW_TO_DRAW = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=150
)


def messages_of(case: Case, values: list[Json]) -> list[bytes]:
    return [case.message(value) for value in values]


@SLOW_TO_DRAW
@given(cases(fast=True))
def test_fast_shapes_give_what_fastavro_gives(drawn: tuple[Case, list[Json]]) -> None:
    case, values = drawn
    assert case.is_fast()
    messages = messages_of(case, values)
    assert decode(case.decoder(), case, records_of(messages)) == oracle(case, messages)


@SLOW_TO_DRAW
@given(cases(fast=False))
def test_other_shapes_give_what_fastavro_gives(drawn: tuple[Case, list[Json]]) -> None:
    case, values = drawn
    messages = messages_of(case, values)
    assert decode(case.decoder(), case, records_of(messages)) == oracle(case, messages)


@SLOW_TO_DRAW
@given(cases(fast=True), st.data())
def test_fast_and_slow_path_agree_on_damaged_messages_too(drawn: tuple[Case, list[Json]], data: st.DataObject) -> None:
    case, values = drawn
    messages = [damaged(data, message) for message in messages_of(case, values)]
    fast = decode(case.decoder(), case, records_of(messages))
    assert fast == decode(one_by_one(case), case, records_of(messages))


@SLOW_TO_DRAW
@given(st.booleans().flatmap(lambda fast: cases(fast=fast)), st.data())
def test_how_records_are_split_over_polls_changes_nothing(drawn: tuple[Case, list[Json]], data: st.DataObject) -> None:
    case, values = drawn
    messages: list[bytes | None] = [damaged(data, message) for message in messages_of(case, values)]
    messages.insert(data.draw(st.integers(0, len(messages))), None)
    cut = data.draw(st.integers(0, len(messages)))
    records = records_of(messages)
    whole = decode(case.decoder(), case, records)
    decoder = case.decoder()
    first = decode(decoder, case, records.select(range(cut)))
    second = decode(decoder, case, records.select(range(cut, len(records))))
    assert whole.keys == first.keys + second.keys
    assert whole.echoes == first.echoes + second.echoes
    assert whole.sources == first.sources + [cut + i for i in second.sources]
    assert whole.tombstones == first.tombstones + [cut + i for i in second.tombstones]
    assert whole.rejections == first.rejections + [(cut + i, *why) for i, *why in second.rejections]
    assert whole.inputs == {name: first.inputs[name] + second.inputs[name] for name in case.inputs}


@SLOW_TO_DRAW
@given(
    st.booleans().flatmap(lambda fast: cases(fast=fast)),
    st.lists(st.binary(max_size=200), max_size=5),
    st.sampled_from([0, 2, 10]),
)
def test_any_bytes_give_a_row_or_one_rejection(
    drawn: tuple[Case, list[Json]], bodies: list[bytes], prefix_bytes: int
) -> None:
    case, _ = drawn
    prefix = case.prefix[:prefix_bytes]
    decode(case.decoder(), case, records_of([prefix + body for body in bodies]))


def damaged(data: st.DataObject, message: bytes) -> bytes:
    """The message, or cut, lengthened, or with some bytes changed."""
    kind = data.draw(st.sampled_from(["whole", "cut", "longer", "changed"]))
    if kind == "cut":
        return message[: data.draw(st.integers(0, len(message)))]
    if kind == "longer":
        return message + data.draw(st.binary(min_size=1, max_size=9))
    changed = bytearray(message)
    if kind == "changed":
        for at in data.draw(st.lists(st.integers(0, len(message) - 1), min_size=1, max_size=3)):
            changed[at] = data.draw(st.integers(0, 255))
    return bytes(changed)


DATED: dict[str, Any] = {
    "type": "record",
    "name": "Dated",
    "fields": [
        {"name": "sku_id", "type": "string"},
        {"name": "as_of", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "sales", "type": {"type": "array", "items": "float"}},
    ],
}
DATED_CASE = Case(
    writer=DATED, reader=DATED, inputs={"sales": 2}, key_fields=["sku_id"], echo_fields=["sku_id", "as_of", "at"]
)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def has_date(days: int, time_ms: int) -> bool:
    """Whether Python's calendar has both."""
    try:
        dt.date(1970, 1, 1) + dt.timedelta(days=days)
        EPOCH + dt.timedelta(milliseconds=time_ms)
    except OverflowError:
        return False
    return True


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-719_163, -719_162, 2_932_896, 2_932_897]),
            st.integers(-(2**63), 2**63 - 1)
            | st.sampled_from([-62_135_596_800_001, -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000])
            | st.integers(0, 2 * 10**12),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_no_calendar_has_is_refused_by_both_ways_and_nothing_else_is(dates: list[tuple[int, int]]) -> None:
    prefix = DATED_CASE.prefix
    plain = {**DATED, "fields": [{**f, "type": p} for f, p in zip(DATED["fields"], PLAIN_TYPES, strict=True)]}
    messages = [
        prefix + encoded(plain, {"sku_id": f"sku{i}", "as_of": days, "at": at, "sales": [1.0, 2.0]})
        for i, (days, at) in enumerate(dates)
    ]
    fast, slow = (
        decode(decoder, DATED_CASE, records_of(messages)) for decoder in (DATED_CASE.decoder(), one_by_one(DATED_CASE))
    )
    assert DATED_CASE.is_fast()
    assert fast == slow
    assert fast.sources == [i for i, date in enumerate(dates) if has_date(*date)]
    assert {reason for _, reason, _ in fast.rejections} <= {"out_of_calendar"}


PLAIN_TYPES = ["string", "int", "long", {"type": "array", "items": "float"}]
