from __future__ import annotations

from dataclasses import replace

import pytest

from worker.errors import ConfigurationError
from worker.records import Span
from worker.replay_book import (
    Arguments,
    Page,
    Totals,
    check_same,
    check_whole,
    latest_totals,
    page_from_note,
    partitions_text,
)

ARGUMENTS = Arguments(
    topic="in", since="earliest", until="latest", partitions="", keys="", model="", target="out", workers=2
)
PAGE = Page(
    arguments=ARGUMENTS,
    partitions="0-1,4",
    span=Span(3, 1 << 60),
    version="2026-11-20",
    digest="f" * 64,
    totals=Totals(records=10, forecasts=9, rejected=1, commits=4),
)


def test_a_page_comes_back_from_its_note_as_it_was() -> None:
    assert page_from_note(PAGE.note(), "partition 0") == PAGE


def test_a_note_fits_where_brokers_keep_it() -> None:
    large = replace(ARGUMENTS, topic="t" * 249, target="u" * 249, partitions="0-99999", model="m" * 128, keys="k" * 16)
    totals = Totals(**dict.fromkeys(("records", "forecasts", "left_alone", "not_selected", "commits"), 10**15))
    assert len(replace(PAGE, arguments=large, totals=totals).note().encode()) < 4096


@pytest.mark.parametrize(
    "note", [None, "", "hello", "{}", "[]", '{"replay":1}', PAGE.note()[:-5], PAGE.note().replace("since", "sinc")]
)
def test_other_notes_are_told_apart(note: str | None) -> None:
    with pytest.raises(ConfigurationError, match="partition 3: got an offset with the note"):
        page_from_note(note, "partition 3")


def test_totals_of_a_process_are_those_of_its_last_commit() -> None:
    newer = PAGE.with_totals(Totals(records=20, forecasts=20, commits=5))
    assert latest_totals([PAGE, newer, PAGE]) == newer.totals
    assert latest_totals([]) == Totals()
    assert Totals(records=2, put_back=1).plus(Totals(records=3, commits=1)) == Totals(records=5, put_back=1, commits=1)


def test_the_same_command_is_the_same_replay_and_another_one_says_what_differs() -> None:
    check_same(ARGUMENTS, ARGUMENTS, "n")
    with pytest.raises(ConfigurationError) as raised:
        check_same(ARGUMENTS, replace(ARGUMENTS, until="offset:5", model="v2"), "n")
    assert str(raised.value).splitlines() == [
        "--name n was used with other arguments:",
        "  - --to: was latest, now offset:5",
        "  - --model: was not given, now v2",
        "run the same command to go on with that replay, or choose another name",
    ]


def test_partitions_in_short() -> None:
    assert partitions_text([4, 1, 0, 7, 6, 5]) == "0-1,4-7"
    assert partitions_text([3]) == "3"
    assert len(partitions_text(range(100_000))) < 10


def test_a_name_of_which_the_broker_has_forgotten_some_partitions_is_refused() -> None:
    check_whole({0: PAGE, 1: PAGE, 4: PAGE}, "n")
    for kept in ((0, 4), (0, 1, 2, 4)):
        with pytest.raises(
            ConfigurationError, match=r"got progress of the partitions .*, expected 0-1,4, .*another --name"
        ):
            check_whole(dict.fromkeys(kept, PAGE), "n")
