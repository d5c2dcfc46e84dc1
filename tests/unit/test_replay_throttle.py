from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import kafka_error
from worker.replay_throttle import LiveLag, Throttle, behind


def throttle(
    clock: ManualClock, lags: list[int | None], *, rate: float | None = None, above: int | None = 100
) -> Throttle:
    return Throttle(
        rate_per_s=rate, behind=lambda: lags.pop(0) if lags else None, pause_above=above, check_s=1.0, clock=clock
    )


def test_without_rate_and_lag_everything_is_granted() -> None:
    made = throttle(ManualClock(), [])
    assert made.granted(4096) == 4096
    made.spent(4096)
    assert made.granted(4096) == 4096


def test_a_rate_holds_over_time_and_what_is_not_used_is_lost() -> None:
    clock = ManualClock()
    made = throttle(clock, [], rate=1000.0)
    assert made.granted(4096) == 0
    read = 0
    for _ in range(100):
        clock.advance(0.05)
        granted = made.granted(4096)
        made.spent(granted)
        read += granted
    assert 4900 <= read <= 5000
    clock.advance(60)
    assert made.granted(4096) == 200


def test_a_slow_rate_grants_single_records() -> None:
    clock = ManualClock()
    made = throttle(clock, [], rate=0.5)
    granted = []
    for _ in range(8):
        clock.advance(0.5)
        granted.append(made.granted(10))
        made.spent(granted[-1])
    assert sum(granted) == 2


def test_it_pauses_while_live_work_is_behind_and_goes_on_at_half_of_it() -> None:
    clock = ManualClock()
    lags: list[int | None] = [100, 101, 80, 50]
    made = throttle(clock, lags)
    assert made.granted(7) == 7
    clock.advance(0.5)
    assert made.granted(7) == 7
    assert len(lags) == 3, "asked once a second"
    seen = []
    for _ in range(3):
        clock.advance(1)
        seen.append((made.granted(7), made.paused))
    assert seen == [(0, True), (0, True), (7, False)]
    assert made.paused_s == pytest.approx(2.0)


def test_a_lag_that_is_not_known_changes_nothing_and_off_never_asks() -> None:
    clock = ManualClock()
    made = throttle(clock, [None, 500, None, 0, None])
    seen = []
    for _ in range(5):
        seen.append(made.granted(7))
        clock.advance(1)
    assert seen == [7, 0, 0, 7, 7]
    lags: list[int | None] = [10**9]
    assert throttle(clock, lags, above=None).granted(7) == 7
    assert lags


def test_lag_is_what_lies_between_the_groups_offsets_and_the_ends() -> None:
    assert behind({}, {0: 5}) == 0
    assert behind({0: 3, 1: 9}, {0: 10, 1: 5, 2: 100}) == 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What librdkafka answers for one partition; nobody but it can set the error of its own class."""

    topic: str
    partition: int
    offset: int
    error: KafkaError | None


class Live:
    """The live group has committed offset 3 of partition 0 and nothing of partition 1; both end at 10."""

    def __init__(self, *, fails: bool = False, failing: Sequence[int] = ()) -> None:
        self.fails, self.failing = fails, failing

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        if self.fails:
            raise KafkaException(kafka_error())
        found = [
            Place(
                topic=place.topic,
                partition=place.partition,
                offset=OFFSET_INVALID if place.partition else 3,
                error=kafka_error() if place.partition in self.failing else None,
            )
            for place in places
        ]
        return cast(list[TopicPartition], found)

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:  # noqa: ARG002
        return 0, 10


def test_an_answer_that_failed_for_one_partition_is_no_answer() -> None:
    def lag(live: Live) -> int | None:
        return LiveLag(cast(Consumer, live), "in", range(2))()

    assert lag(Live()) == 7
    assert lag(Live(fails=True)) is None
    assert lag(Live(failing=[1])) is None
