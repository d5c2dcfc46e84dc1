from __future__ import annotations

import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.memory import MemoryBroker, MemoryDelivery
from tests.helpers.workers import FRAMING, SCHEMA, event
from tests.unit.test_replay_book import PAGE
from worker.deadline import Deadline
from worker.errors import AbortableError
from worker.records import Positions, Span
from worker.replay_book import Totals, page_from_note
from worker.replay_delivery import LiveGuard, ReplayDelivery
from worker.replay_fresher import AsOfReader, Fresher, Live
from worker.transaction import Outgoing

DEADLINE = Deadline.after(10, ManualClock())


class Table:
    """The live topic: `news` is what the next look sees."""

    def __init__(self, fresher: Fresher) -> None:
        self.fresher = fresher
        self.news: list[tuple[bytes, Live]] = []
        self.at_settle: list[list[tuple[bytes, Live]]] = []
        self.settled = 0

    def look(self, deadline: Deadline) -> None:  # noqa: ARG002
        for key, live in self.news:
            self.fresher.saw(key, live)
        self.news.clear()

    def settle(self, deadline: Deadline) -> None:
        self.settled += 1
        if self.at_settle:
            self.news += self.at_settle.pop(0)
        self.look(deadline)


class Rig:
    def __init__(self, *, guarded: bool = False) -> None:
        self.broker = MemoryBroker(partitions=2)
        self.inner = MemoryDelivery(self.broker)
        fresher = Fresher()
        self.table = Table(fresher)
        reader = AsOfReader(SCHEMA, FRAMING.prefix_bytes)  # events have the field as well
        self.delivery = ReplayDelivery(
            forecasts="out",
            pages={0: PAGE, 1: PAGE},
            guard=LiveGuard(self.table, fresher, reader, "out") if guarded else None,
        )
        self.delivery.attach(self.inner)
        self.ended = 0

    def produce(self, *values: tuple[bytes, bytes | None], topic: str = "out", timestamp_ms: int = 0) -> None:
        outgoing = Outgoing(
            topic=topic,
            keys=[key for key, _ in values],
            values=[value for _, value in values],
            partitions=[0] * len(values),
            timestamps_ms=[timestamp_ms] * len(values),
            headers=[[("n", b"1")]] * len(values),
        )
        self.delivery.produce(outgoing, DEADLINE)

    def commit(self, records: int) -> None:
        self.delivery.commit(Positions("in", {0: Span(self.ended, self.ended + records)}, records), DEADLINE)
        self.ended += records

    @property
    def written(self) -> list[tuple[bytes | None, bytes | None]]:
        return [(m.key, m.value) for m in self.broker.published]


def test_counts_become_true_with_their_commit_and_stand_in_its_note() -> None:
    rig = Rig()
    rig.delivery.begin(Totals(records=100, forecasts=100, commits=9))
    rig.produce((b"a", b"1"), (b"b", None))
    rig.produce((b"c", b"letter"), topic="dead")
    assert rig.delivery.totals.records == 100
    rig.commit(5)
    expected = Totals(records=105, forecasts=101, withdrawn=1, rejected=1, not_selected=2, commits=10)
    assert rig.delivery.totals == expected
    assert page_from_note(rig.delivery.note(1), "") == PAGE.with_totals(expected)


def test_an_abort_counts_nothing() -> None:
    rig = Rig()
    rig.produce((b"a", b"1"))
    rig.delivery.abort(DEADLINE)
    rig.inner.fail_next["commit"] = AbortableError("no")
    rig.produce((b"a", b"1"))
    with pytest.raises(AbortableError):
        rig.commit(1)
    rig.delivery.abort(DEADLINE)
    rig.produce((b"a", b"1"))
    rig.commit(1)
    assert rig.delivery.totals == Totals(records=1, forecasts=1, commits=1)
    assert rig.written == [(b"a", b"1")]


def test_the_live_topic_gets_only_what_is_fresher() -> None:
    rig = Rig(guarded=True)
    rig.table.news = [(b"old", Live(10, 5, 0)), (b"same", Live(20, 5, 0)), (b"gone", Live(None, 5, 0))]
    rig.produce(*((key, event(1, as_of=20)) for key in (b"old", b"same", b"gone", b"new", b"old")))
    rig.commit(5)
    assert [key for key, _ in rig.written] == [b"old", b"new", b"old"], "ours yields to a later event of the same day"
    assert [m.headers for m in rig.broker.published] == [(("n", b"1"),)] * 3
    assert rig.delivery.totals == Totals(records=5, forecasts=3, left_alone=2, commits=1)
    rig.produce((b"old", None), (b"same", None), timestamp_ms=3)
    assert rig.delivery.is_open, "what was left alone waits for its commit, too"
    rig.commit(2)
    assert rig.delivery.totals.left_alone == 3
    assert rig.delivery.totals.withdrawn == 1


def test_what_live_workers_wrote_meanwhile_is_put_back_in_the_same_transaction() -> None:
    rig = Rig(guarded=True)
    rig.produce((b"k", event(1, as_of=20)))
    rig.table.news = [(b"k", Live(30, 77, 1, b"fresher", [("traceparent", b"00")]))]
    rig.commit(1)
    assert rig.written == [(b"k", event(1, as_of=20)), (b"k", b"fresher")]
    assert (rig.broker.published[1].partition, rig.broker.published[1].timestamp_ms) == (1, 77)
    assert rig.broker.published[1].headers == (("traceparent", b"00"),)
    assert rig.delivery.totals == Totals(records=1, forecasts=1, put_back=1, commits=1)


def test_the_last_look_waits_for_what_is_undecided_and_puts_back() -> None:
    rig = Rig(guarded=True)
    rig.produce((b"k", event(1, as_of=20)))
    rig.commit(1)
    rig.table.news = [(b"k", Live(30, 0, 0, b"fresher")), (b"k", Live(20, 0, 0, event(1, as_of=20)))]
    rig.delivery.settle("in", DEADLINE)
    assert rig.table.settled == 2
    assert rig.written[1:] == [(b"k", b"fresher")]
    assert rig.delivery.totals == Totals(records=1, forecasts=1, put_back=1, commits=2)
    rig.delivery.settle("in", DEADLINE)
    assert rig.delivery.totals.commits == 2
    unguarded = Rig()
    unguarded.delivery.settle("in", DEADLINE)
    assert unguarded.broker.commits == 0


def test_the_last_look_is_repeated_until_nothing_is_buried() -> None:
    """What it puts back may bury a live forecast in turn, whose transaction was still open."""
    rig = Rig(guarded=True)
    ours = event(1, as_of=20)
    first, second = Live(30, 0, 0, b"first"), Live(31, 0, 0, b"second")
    rig.produce((b"k", ours))
    rig.commit(1)
    rig.table.at_settle = [
        [(b"k", first), (b"k", Live(20, 0, 0, ours))],
        [(b"k", second), (b"k", first)],
        [(b"k", second)],
    ]
    rig.delivery.settle("in", DEADLINE)
    assert [value for _, value in rig.written] == [ours, b"first", b"second"]
    assert rig.table.settled == 3
    assert rig.delivery.totals.put_back == 2


def test_it_needs_its_transaction() -> None:
    with pytest.raises(ValueError, match="no transaction was attached"):
        ReplayDelivery(forecasts="out", pages={}).close()
