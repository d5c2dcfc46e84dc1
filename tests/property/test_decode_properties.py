from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.avro import Case, Json, decode, one_by_one, oracle, records_of
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
    prefix = case.framing.prefix_for(case.writer)[:prefix_bytes]
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
