from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from worker.errors import OutOfOrderError
from worker.records import Positions, Reason, Record, Records, Span


def record(offset: int, partition: int = 0) -> Record:
    return Record(
        topic="in",
        partition=partition,
        offset=offset,
        timestamp_ms=offset * 10,
        key=f"k{offset}".encode(),
        value=None if offset % 2 else f"v{offset}".encode(),
    )


def test_the_next_offset_is_one_further() -> None:
    assert record(41).next_offset == 42


def test_records_are_columns_and_give_each_record_back() -> None:
    given = [record(3), record(8, 1), record(4)]
    records = Records.of(given)
    assert records.topic == "in"
    columns = (records.partitions, records.offsets, records.timestamps_ms)
    assert [str(column.dtype) for column in columns] == ["int32", "int64", "int64"]
    assert len(records) == 3
    assert list(records) == given
    assert records[-1] == given[-1]
    assert type(records[0].offset) is int


def test_no_records_have_a_topic_still() -> None:
    records = Records.of([], topic="in")
    assert (len(records), records.topic, list(records)) == (0, "in", [])


def test_select_takes_the_chosen_ones_in_that_order() -> None:
    given = [record(0), record(1), record(2)]
    records = dataclasses.replace(Records.of(given), headers=[[("a", b"0")], [], [("c", None)]])
    chosen = records.select([2, 0])
    assert [each.offset for each in chosen] == [2, 0]
    assert [each.headers for each in chosen] == [(("c", None),), (("a", b"0"),)]
    assert chosen.headers == [[("c", None)], [("a", b"0")]]
    assert list(Records.of(given).select(np.array([1], np.intp))) == [given[1]]
    assert Records.of(given).select([]).headers is None


def test_records_never_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record(0).offset = 1  # type: ignore[misc]


def test_reasons_are_their_own_labels() -> None:
    assert f"{Reason.UNKNOWN_SCHEMA}" == "unknown_schema_id"
    assert len(Reason) == 14


def positions(records: int = 1, **spans: tuple[int, int]) -> Positions:
    return Positions("in", {int(name[1:]): Span(*span) for name, span in spans.items()}, records)


def test_positions_that_follow_one_another_become_one() -> None:
    both = positions(2, p0=(0, 5), p1=(7, 8)).followed_by(positions(3, p0=(5, 6), p2=(1, 2)))
    assert both == positions(5, p0=(0, 6), p1=(7, 8), p2=(1, 2))


def test_offsets_between_them_may_be_missing() -> None:
    """Transaction markers and compaction take offsets that no record has."""
    assert positions(p0=(0, 5)).followed_by(positions(p0=(9, 10))) == positions(2, p0=(0, 10))


@pytest.mark.parametrize("later", [(4, 6), (0, 5), (0, 1)])
def test_positions_that_run_backwards_are_refused(later: tuple[int, int]) -> None:
    with pytest.raises(OutOfOrderError, match=rf"positions of in\[0\] run backwards: {later[0]} after 5"):
        positions(p0=(0, 5)).followed_by(positions(p0=later))


def test_positions_are_a_copy_that_nobody_can_change() -> None:
    spans = {0: Span(0, 1)}
    sealed = Positions("in", spans, 1)
    spans[1] = Span(0, 1)
    assert dict(sealed.spans) == {0: Span(0, 1)}
    with pytest.raises(TypeError):
        sealed.spans[1] = Span(0, 1)  # type: ignore[index]
