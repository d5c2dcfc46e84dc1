"""Events for a worker at full load: there before a block, or sent beside it."""

from __future__ import annotations

from typing import cast

import pytest

from bench.job import ContenderError
from bench.swap_job import Feed
from bench.swap_load import FIRST_EVENTS, STOCK_S, WARM_UP_S, Supply
from tests.helpers.waiting import wait_until


class FakeFeed:
    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[int] = []
        self.flushed = 0
        self.error = error

    def send(self, count: int) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(count)

    def flush(self) -> None:
        self.flushed += 1


def supply(feed: FakeFeed, left: int, *, steady: bool = True, rate_per_s: float = 100.0) -> Supply:
    return Supply(
        feed=cast(Feed, feed),
        left=lambda: left,
        steady=steady,
        rate_per_s=rate_per_s,
        look_s=0.0,
        pause=lambda _: None,
    )


def test_beside_a_block_the_stock_is_filled_up_to_what_the_worker_needs_for_some_seconds() -> None:
    feed = FakeFeed()
    with supply(feed, left=300).beside():
        wait_until(lambda: len(feed.sent) > 1, "sent twice")
    assert set(feed.sent) == {int(100.0 * STOCK_S) - 300}
    assert feed.flushed == 1


def test_too_little_stock_is_a_failure_and_so_is_what_sending_raises() -> None:
    feed = FakeFeed()
    slow = pytest.raises(ContenderError, match="too slowly: 99 were left once, of 100 a second")
    with slow, supply(feed, left=99).beside():
        wait_until(lambda: bool(feed.sent), "sent")
    with pytest.raises(OSError, match="gone"), supply(FakeFeed(OSError("gone")), left=300).beside():
        raise RuntimeError("the worker ran out of events")


def test_a_worker_whose_rate_is_not_known_yet_may_have_nothing_left() -> None:
    feed = FakeFeed()
    with supply(feed, left=0, rate_per_s=0.0).beside():
        wait_until(lambda: bool(feed.sent), "sent")
    assert feed.sent[0] == int(FIRST_EVENTS / WARM_UP_S * STOCK_S)


def test_without_it_all_is_sent_before_the_block() -> None:
    feed = FakeFeed()
    before = supply(feed, left=50, steady=False)
    before.before(10.0)
    with before.beside():
        pass
    assert (feed.sent, feed.flushed) == ([1250 - 50], 1)
