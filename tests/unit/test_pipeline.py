from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest

from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine
from tests.helpers.forecasting import forecasting
from tests.helpers.gathering import INPUTS, Event, Kind, gather
from tests.helpers.memory import MemoryBroker, MemoryDelivery
from worker.batching import Batch, Batcher, CutReason
from worker.breaker import Breaker
from worker.checked import Checked
from worker.deadline import Deadline
from worker.errors import AbortableError, EngineError, FatalDeliveryError, UnreachableError
from worker.hotswap import EngineSlot
from worker.pipeline import PROBES, Pipeline
from worker.publish import Publisher, Routing
from worker.records import Reason, Rejection
from worker.statistics import Stage, Statistics, Tallies
from worker.transaction import Outgoing

ROUTING = Routing(forecasts="out", dead_letters="dead", same_partitions=True, same_dead_letter_partitions=True)


class Notebook:
    """Produces one message for each row, its value the row's first number, and notes what it was given.

    `fail`: what the next calls raise. `reject`: what the next calls give back.
    """

    def __init__(self, delivery: MemoryDelivery) -> None:
        self._delivery = delivery
        self.rows: list[int] = []
        self.routings: list[Routing] = []
        self.fail: list[Exception] = []
        self.reject: list[Sequence[Rejection]] = []

    def publish(
        self, batch: Batch, checked: Checked | None, routing: Routing, deadline: Deadline
    ) -> Sequence[Rejection]:
        self.rows.append(batch.rows)
        self.routings.append(routing)
        assert (checked is None) == (batch.rows == 0)
        if self.fail:
            raise self.fail.pop(0)
        values = [] if checked is None else checked.parts[0].forecasts.values[:, 0, 0].tolist()
        self._delivery.produce(
            Outgoing(
                topic=routing.forecasts,
                keys=list(batch.keys),
                values=[f"{value:.1f}".encode() for value in values],
                partitions=batch.partitions.tolist(),
                timestamps_ms=batch.timestamps_ms.tolist(),
            ),
            deadline,
        )
        return self.reject.pop(0) if self.reject else []


class Bench:
    """A pipeline over a fake engine; the transactions are in memory."""

    def __init__(self, *, slots: int = 2, asynchronous: bool = True) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(2)
        self.delivery = MemoryDelivery(self.broker)
        self.publisher = Notebook(self.delivery)
        self.engine = FakeEngine(INPUTS, max_rows=4, slots=slots, asynchronous=asynchronous)
        self.engines = EngineSlot(self.engine)
        self.batcher = Batcher(max_rows=4, linger_s=0.02, max_wait_s=0.5, coalesce=False)
        self.breaker = Breaker(rejected_share=0.5, window_records=4)
        self.tallies = Tallies()
        self.route: Routing | UnreachableError = ROUTING
        self.probed: list[str] = []
        self.asked_routes = 0
        self.pipeline = Pipeline(
            batcher=self.batcher,
            forecasting=forecasting(self.engines, tallies=self.tallies, breaker=self.breaker, clock=self.clock),
            publisher=cast(Publisher, self.publisher),
            breaker=self.breaker,
            delivery=self.delivery,
            routing=self._route,
            tallies=self.tallies,
            commit_interval_s=0.5,
            transaction_s=15.0,
            clock=self.clock,
            wall_clock_ms=lambda: 10_000,
            probe=self.probed.append,
        )
        self._next = [0, 0]

    def gather(self, count: int = 1, partition: int = 0, kind: Kind = "row") -> None:
        """Put `count` more records of `partition` into the open batch."""
        first = self._next[partition]
        self._next[partition] += count
        events = [Event(partition, offset, kind=kind) for offset in range(first, first + count)]
        assert self.pipeline.open_slot()
        gather(self.batcher, events, self.clock())

    def submit(self, count: int = 1, partition: int = 0) -> None:
        self.gather(count, partition)
        self.pipeline.submit(CutReason.IDLE)

    def finish(self, seconds: float = 5.0, *, engine_keeps_up: bool = True) -> None:
        """Finish within `seconds`; the engine is done with a batch as soon as it is waited for."""
        self.engine._ready_after_waits = 1 if engine_keeps_up else None
        self.pipeline.finish(CutReason.STOP, Deadline.after(seconds, self.clock))
        self.engine._ready_after_waits = None

    @property
    def counted(self) -> Statistics:
        return self.tallies.snapshot(self.clock())

    @property
    def committed(self) -> dict[int, int]:
        return self.broker.committed

    def _route(self) -> Routing:
        self.asked_routes += 1
        if isinstance(self.route, UnreachableError):
            raise self.route
        return self.route


@pytest.fixture
def bench() -> Bench:
    return Bench()


def first_number(partition: int, offset: int) -> bytes:
    """What `Notebook` makes of the forecast for this event: its first day's lowest quantile."""
    first, second, price = Event(partition, offset).features
    return f"{(first + second) / 2 + price + 0.1:.1f}".encode()


# -- submitting and collecting ----------------------------------------------------------------------------------------


def test_the_next_batch_is_submitted_while_the_first_computes_and_results_keep_their_order(bench: Bench) -> None:
    bench.submit(2)
    bench.submit(3)
    assert (bench.engine.outstanding, bench.pipeline.busy) == (2, True)
    bench.pipeline.publish_finished()
    assert bench.publisher.rows == []
    bench.engine.finish(1)
    bench.pipeline.publish_finished()
    assert (bench.publisher.rows, bench.pipeline.busy) == ([2], True)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    assert (bench.publisher.rows, bench.pipeline.busy) == ([2, 3], False)
    assert bench.engine.blocked == 0


def test_rows_come_out_as_the_forecasts_of_their_own_events(bench: Bench) -> None:
    bench.submit(2)
    bench.submit(2, partition=1)
    bench.finish()
    expected = [first_number(partition, offset) for partition, offset in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert [message.value for message in bench.broker.published] == expected
    assert [message.partition for message in bench.broker.published] == [0, 0, 1, 1]


def test_nothing_gathered_is_nothing_submitted(bench: Bench) -> None:
    bench.pipeline.submit(CutReason.IDLE)
    assert not bench.pipeline.busy
    assert bench.pipeline.open_slot()
    bench.pipeline.submit(CutReason.IDLE)
    assert bench.engine.outstanding == 0
    assert bench.counted.batches == {}


def test_a_batch_without_rows_keeps_its_slot_and_its_place_in_the_order(bench: Bench) -> None:
    bench.submit(2)
    bench.gather(1, kind="rejection")
    bench.pipeline.submit(CutReason.IDLE)
    assert bench.batcher.slot is not None
    bench.submit(1)
    assert bench.engine.outstanding == 2
    bench.pipeline.publish_finished()
    assert bench.publisher.rows == []
    bench.finish()
    assert bench.publisher.rows == [2, 0, 1]
    assert bench.committed == {0: 4}


def test_a_slot_is_opened_once_and_refused_while_all_are_in_use(bench: Bench) -> None:
    assert bench.pipeline.open_slot()
    slot = bench.batcher.slot
    assert bench.pipeline.open_slot()
    assert bench.batcher.slot is slot
    bench.submit()
    bench.submit()
    assert not bench.pipeline.open_slot()
    assert not bench.pipeline.wait(1.0)
    bench.engine.finish(1)
    assert bench.pipeline.wait(0.0)
    bench.pipeline.publish_finished()
    assert bench.pipeline.open_slot()


def test_a_batch_ends_on_the_engine_that_it_was_opened_with(bench: Bench) -> None:
    bench.gather(2)
    other = FakeEngine(INPUTS, max_rows=4, slots=2, asynchronous=True, digest="fb" * 32)
    bench.engines._serving = other
    bench.pipeline.submit(CutReason.IDLE)
    bench.submit(1)
    assert (bench.engine.submitted_rows, other.submitted_rows) == ([2], [1])
    bench.engine.finish()
    other.finish()
    bench.finish()
    assert (bench.engine.free, other.free) == (2, 2)
    assert bench.publisher.rows == [2, 1]


# -- committing -------------------------------------------------------------------------------------------------------


def test_the_commit_interval_runs_from_the_first_output_on(bench: Bench) -> None:
    assert bench.pipeline.commit_due_s == float("inf")
    bench.submit()
    bench.clock.advance(3.0)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    assert bench.pipeline.commit_due_s == bench.clock() + 0.5
    bench.clock.advance(0.4)
    bench.submit()
    bench.engine.finish()
    bench.pipeline.publish_finished()
    bench.pipeline.commit_if_due()
    assert bench.broker.commits == 0
    bench.clock.advance(0.1)
    bench.pipeline.commit_if_due()
    assert (bench.broker.commits, bench.committed) == (1, {0: 2})
    assert bench.pipeline.commit_due_s == float("inf")
    bench.clock.advance(9.0)
    bench.pipeline.commit_if_due()
    assert bench.broker.commits == 1


def test_a_commit_hands_what_was_gathered_to_the_engine_first(bench: Bench) -> None:
    bench.submit(2)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    bench.gather(1)
    bench.clock.advance(0.5)
    bench.probed.clear()
    bench.pipeline.commit_if_due()
    assert bench.probed == ["submitted", "before_commit", "after_commit"]
    assert bench.committed == {0: 2}
    assert bench.engine.outstanding == 1
    assert bench.counted.batches == {"idle": 1, "commit": 1}


def test_positions_of_all_batches_are_committed_together_with_their_outputs(bench: Bench) -> None:
    bench.submit(2)
    bench.submit(1, partition=1)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    assert bench.broker.published == []
    bench.finish()
    assert (bench.broker.commits, bench.committed) == (1, {0: 2, 1: 1})
    assert len(bench.broker.published) == 3


def test_finish_brings_everything_gathered_to_a_commit(bench: Bench) -> None:
    bench.submit(2)
    bench.gather(2)
    bench.finish()
    assert (bench.broker.commits, bench.committed) == (1, {0: 4})
    assert bench.counted.batches == {"idle": 1, "stop": 1}


def test_finish_with_nothing_to_do_opens_no_transaction(bench: Bench) -> None:
    bench.finish()
    assert bench.broker.commits == 0
    assert bench.counted.transactions == {"committed": 0, "aborted": 0}


def test_finish_gives_up_when_the_engine_is_not_done_by_the_deadline(bench: Bench) -> None:
    bench.submit(2)
    bench.submit(2)
    bench.engine.finish(1)
    with pytest.raises(AbortableError, match="wasn't done within the budget"):
        bench.finish(0.0, engine_keeps_up=False)
    assert bench.broker.commits == 0
    bench.pipeline.discard()
    assert (bench.broker.published, bench.delivery.aborted) == ([], 1)


def test_routes_are_asked_for_once_and_again_after_a_rebalance(bench: Bench) -> None:
    bench.submit()
    bench.submit()
    bench.finish()
    assert bench.asked_routes == 1
    bench.pipeline.reroute()
    assert bench.asked_routes == 1
    bench.submit()
    bench.finish()
    assert bench.asked_routes == 2


# -- discarding -------------------------------------------------------------------------------------------------------


def test_discard_drops_transaction_batches_and_rows_and_frees_every_slot(bench: Bench) -> None:
    bench.submit(2)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    bench.submit(1)
    bench.gather(1)
    assert bench.delivery.is_open
    bench.pipeline.discard()
    assert (bench.delivery.is_open, bench.pipeline.busy, bench.batcher.empty) == (False, False, True)
    assert (bench.engine.free, bench.engine.outstanding) == (2, 0)
    assert bench.pipeline.commit_due_s == float("inf")
    assert bench.counted.transactions == {"committed": 0, "aborted": 1}
    bench.finish()
    assert (bench.broker.published, bench.committed) == ([], {})


def test_discard_with_nothing_open_aborts_nothing(bench: Bench) -> None:
    bench.gather(1)
    bench.pipeline.discard()
    assert bench.delivery.aborted == 0
    assert bench.counted.transactions["aborted"] == 0
    assert bench.engine.free == 2


def test_discard_forgets_results_that_failed(bench: Bench) -> None:
    bench.engine.fail_collect = [EngineError("lost"), EngineError("lost too")]
    bench.submit()
    bench.submit()
    bench.pipeline.discard()
    assert (bench.engine.free, bench.pipeline.busy) == (2, False)


def test_after_a_discard_the_same_records_may_come_again(bench: Bench) -> None:
    bench.submit(2)
    bench.engine.finish()
    bench.pipeline.publish_finished()
    bench.pipeline.discard()
    bench._next = [0, 0]
    bench.submit(3)
    bench.finish()
    assert bench.committed == {0: 3}
    assert len(bench.broker.published) == 3


@pytest.mark.parametrize("failure", [AbortableError("refused"), FatalDeliveryError("gone"), EngineError("odd")])
def test_whoever_fails_the_slot_is_released_and_nothing_is_counted_as_done(bench: Bench, failure: Exception) -> None:
    bench.publisher.fail = [failure]
    bench.submit(2)
    bench.engine.finish()
    with pytest.raises(type(failure), match=str(failure)):
        bench.pipeline.publish_finished()
    assert bench.engine.free == 2
    bench.pipeline.discard()
    bench.finish()
    assert (bench.broker.commits, bench.committed) == (0, {})


def test_an_engine_that_fails_leaves_its_slot_free_and_the_others_in_order(bench: Bench) -> None:
    bench.engine.fail_collect = [EngineError("row 7"), None, *(EngineError("row 7") for _ in range(9))]
    bench.submit(2)
    bench.submit(1)
    bench.engine.finish()
    with pytest.raises(EngineError, match="row 7"):
        bench.pipeline.publish_finished()
    assert bench.engine.free == 1
    bench.pipeline.discard()
    assert bench.engine.free == 2
    assert bench.publisher.rows == []


@pytest.mark.parametrize("call", ["produce", "commit"])
def test_a_transaction_that_breaks_is_aborted_once(bench: Bench, call: str) -> None:
    bench.delivery.fail_next[call] = AbortableError("refused")
    bench.submit(2)
    with pytest.raises(AbortableError, match="refused"):
        bench.finish()
    assert bench.delivery.is_open
    bench.pipeline.discard()
    bench.pipeline.discard()
    assert bench.delivery.aborted == 1
    assert bench.broker.published == []


def test_what_publishing_rejects_may_trip_the_breaker_and_is_not_committed_then(bench: Bench) -> None:
    records = [Rejection(record=Event(0, n).record, reason=Reason.BAD_FORECAST, detail="NaN") for n in range(4)]
    bench.breaker.add(4, [])
    bench.publisher.reject = [records[:2], records[2:3]]
    bench.submit(3)
    bench.engine.finish()
    bench.pipeline.publish_finished()  # half of the last four
    assert bench.breaker.tripped is None
    bench.submit(1)
    with pytest.raises(AbortableError, match=r"breaker tripped: 3 of the last 4 records .*bad_forecast 3"):
        bench.finish()
    bench.pipeline.discard()
    assert (bench.committed, bench.delivery.aborted, bench.engine.free) == ({}, 1, 2)


def test_topics_that_are_gone_end_the_process(bench: Bench) -> None:
    bench.route = UnreachableError("topics that don't exist: out")
    bench.submit()
    with pytest.raises(FatalDeliveryError, match="asking where outputs go: topics that don't exist: out"):
        bench.finish()
    assert bench.engine.free == 2


# -- what is told -----------------------------------------------------------------------------------------------------


def test_every_point_is_passed_in_the_order_of_the_datas_way(bench: Bench) -> None:
    bench.submit()
    bench.finish()
    assert bench.probed == [point for point in PROBES if point in bench.probed]
    assert bench.probed == ["submitted", "collected", "published", "before_commit", "after_commit"]


def test_what_was_done_is_counted_and_timed(bench: Bench) -> None:
    def slow(seconds: float) -> Callable[[str], None]:
        return lambda point: bench.clock.advance(seconds) if point == "before_commit" else None

    bench.pipeline._probe = slow(0.2)
    bench.gather(3)
    bench.clock.advance(0.25)
    bench.pipeline.submit(CutReason.DUE)
    bench.clock.advance(1.5)
    bench.finish()
    counted = bench.counted
    assert (counted.batches, counted.batch_rows.count, counted.batch_rows.total) == ({"due": 1}, 1, 3.0)
    assert counted.stages[Stage.QUEUE].total == pytest.approx(0.25)
    assert counted.stages[Stage.ENGINE].total == pytest.approx(1.5)
    assert counted.stages[Stage.COMMIT].total == pytest.approx(0.2)
    assert counted.transactions == {"committed": 1, "aborted": 0}
    assert counted.end_to_end.count == 3
    assert counted.end_to_end.total == pytest.approx(3 * 10.0 - 0.03)
