"""How fast a replay may read: a rate, and a pause while the live workers are behind.

Live lag is what anybody can see on the broker: the ends of the input topic less the offsets that the live group has
committed. Nobody joins that group and nothing is committed for it. The difference counts markers and aborted records,
too, so it is a little high; that is why the pause has a threshold and isn't "any lag at all".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from worker.deadline import Clock

log = structlog.get_logger(__name__)

BURST_S: Final = 0.2
"""A rate is kept over so long: what wasn't used is lost after it."""
LEAST_S: Final = 0.05
"""So much of it is handed out at a time, at least: many polls of few records cost more than they bring."""
ASK_TIMEOUT_S: Final = 5.0

Behind = Callable[[], int | None]
"""How many offsets the live group is behind, 0 without a live group; None if that isn't known: nobody answered."""


class Throttle:
    """`Allowance` of one process of a replay.

    Args:
        rate_per_s: records per second; None: as many as there are.
        behind: asked every `check_s`; see `Behind`.
        pause_above: pauses while `behind` is above it, until it is at half of it; None: never.
        clock: monotonic.
    """

    def __init__(
        self,
        *,
        rate_per_s: float | None,
        behind: Behind,
        pause_above: int | None,
        check_s: float,
        clock: Clock,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._behind = behind
        self._pause_above = pause_above
        self._check_s = check_s
        self._clock = clock
        self._tokens = 0.0
        self._filled_s = clock()
        self._check_due_s = float("-inf")
        self._paused_since_s: float | None = None
        self._paused_s = 0.0

    @property
    def paused(self) -> bool:
        """True while live work is behind."""
        return self._paused_since_s is not None

    @property
    def paused_s(self) -> float:
        """How long it has been paused in all, seconds."""
        now = 0.0 if self._paused_since_s is None else self._clock() - self._paused_since_s
        return self._paused_s + now

    def granted(self, wanted_records: int) -> int:
        """See `Allowance.granted`."""
        now_s = self._clock()
        if self._pause_above is not None and now_s >= self._check_due_s:
            self._check_due_s = now_s + self._check_s
            self._check(self._pause_above)
        if self.paused:
            return 0
        if self._rate_per_s is None:
            return wanted_records
        burst = max(1.0, self._rate_per_s * BURST_S)
        least = max(1.0, self._rate_per_s * LEAST_S)
        self._tokens = min(burst, self._tokens + (now_s - self._filled_s) * self._rate_per_s)
        self._filled_s = now_s
        return min(wanted_records, int(self._tokens)) if self._tokens >= least else 0

    def spent(self, records: int) -> None:
        """See `Allowance.spent`."""
        if self._rate_per_s is not None:
            self._tokens -= records

    def _check(self, pause_above: int) -> None:
        behind = self._behind()
        if behind is None:  # no reason to change anything: brokers in trouble are the time to make way
            return
        if self._paused_since_s is None and behind > pause_above:
            self._paused_since_s = self._clock()
            log.info("replay pauses: live work comes first", live_lag_records=behind, pause_above=pause_above)
        elif self._paused_since_s is not None and behind <= pause_above // 2:
            self._paused_s, self._paused_since_s = self.paused_s, None
            log.info("replay goes on", live_lag_records=behind)


class LiveLag:
    """How far the live group is behind on the input topic. Called, it is a `Behind`.

    Args:
        consumer: made with the live group's id, but never subscribed nor assigned: it only asks.
        topic: the input topic.
        partitions: all of the topic's, not only those that are replayed.
    """

    def __init__(self, consumer: Consumer, topic: str, partitions: Sequence[int]) -> None:
        self._consumer = consumer
        self._places = [TopicPartition(topic, partition) for partition in partitions]

    def __call__(self) -> int | None:
        """See `Behind`. Partitions that the group never committed for don't count: nobody serves them live."""
        try:
            committed = self._consumer.committed(self._places, timeout=ASK_TIMEOUT_S)
            for place in committed:
                if place.error is not None:
                    raise KafkaException(place.error)  # noqa: TRY301 - the same as an error of all
            ends = {p.partition: self._end(p) for p in committed if p.offset is not None and p.offset >= 0}
        except KafkaException as exception:
            log.warning("live lag isn't known; the replay pauses or goes on as before", reason=exception.args[0].str())
            return None
        return behind({p.partition: int(p.offset or 0) for p in committed if p.partition in ends}, ends)

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _end(self, place: TopicPartition) -> int:
        _, end = self._consumer.get_watermark_offsets(
            TopicPartition(place.topic, place.partition), timeout=ASK_TIMEOUT_S
        )
        return int(end)


def behind(committed: Mapping[int, int], ends: Mapping[int, int]) -> int:
    """Offsets between `committed` and `ends`, both by partition; 0 if nothing was ever committed."""
    return sum(max(0, ends[partition] - offset) for partition, offset in committed.items())
