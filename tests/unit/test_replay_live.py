from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from confluent_kafka.admin import AdminClient

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import FakeMessage
from tests.helpers.logs_of_offsets import LogConsumer
from worker import replay_live
from worker.deadline import Deadline
from worker.errors import FatalDeliveryError
from worker.replay_fresher import Fresher, Live
from worker.replay_live import LiveTable


class Ends:
    """What the broker says of ends: `visible` is decided, `all` counts open transactions."""

    def __init__(self, visible: dict[int, int]) -> None:
        self.visible = visible
        self.all = dict(visible)

    def __call__(self, _: object, __: str, partitions: Sequence[int], at: str) -> Mapping[int, tuple[int, int]]:
        ends = self.all if at == "end" else self.visible
        return {partition: (ends[partition], -1) for partition in partitions}


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    made = Ends({0: 4, 1: 0})
    monkeypatch.setattr(replay_live, "offsets_of", made)
    return made


def table(consumer: LogConsumer, fresher: Fresher, clock: ManualClock, as_of: Any = len) -> LiveTable:
    return LiveTable(consumer.as_consumer, cast(AdminClient, None), "out", 2, as_of=as_of, fresher=fresher, clock=clock)


def test_it_reads_everything_visible_over_markers_then_what_is_new(ends: Ends) -> None:
    fresher, clock = Fresher(), ManualClock()
    records: dict[int, list[int]] = {0: [0, 2], 1: []}
    consumer = LogConsumer(records, {0: 4, 1: 0})
    made = table(consumer, fresher, clock)
    assert len(fresher) == 2
    assert not fresher.allows(b"key 2", len(b"value"))
    assert fresher.allows(b"key 2", len(b"value") + 1)
    records[0].append(5)
    consumer.ends[0] = ends.visible[0] = 7
    consumer.arrived(0)
    made.look(Deadline.after(1, clock))
    assert not fresher.allows(b"key 5", 1)
    made.close()


def test_the_last_look_waits_for_what_is_undecided_and_not_for_ever(ends: Ends) -> None:
    fresher, clock = Fresher(), ManualClock()
    made = table(LogConsumer({0: [0], 1: []}, {0: 4, 1: 0}), fresher, clock)
    ends.all[0] = 6  # somebody's transaction is open
    made.look(Deadline.after(0, clock))
    with pytest.raises(FatalDeliveryError, match="another transaction may be open there for long"):
        made.settle(Deadline.after(0, clock))


def test_something_else_on_the_topic_is_told(ends: Ends) -> None:
    def refuse(_: bytes) -> int:
        raise ValueError("isn't a forecast of this schema: odd")

    assert ends.visible
    with pytest.raises(FatalDeliveryError, match=r"out\[0\] at offset 0: isn't a forecast"):
        table(LogConsumer({0: [0], 1: []}, {0: 4, 1: 0}), Fresher(), ManualClock(), as_of=refuse)


def test_a_record_that_may_be_buried_keeps_what_it_takes_to_write_it_again(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeMessage, "headers", lambda _: [("model", b"m")])
    fresher, clock = Fresher(), ManualClock()
    records: dict[int, list[int]] = {0: [0], 1: []}
    consumer = LogConsumer(records, {0: 4, 1: 0})
    made = table(consumer, fresher, clock)
    fresher.produced(b"key 5", Live(1, 0, 0, b"ours"))
    records[0].append(5)
    consumer.ends[0] = ends.visible[0] = 6
    consumer.arrived(0)
    made.look(Deadline.after(1, clock))
    ((key, live),) = fresher.buried()
    assert (key, live.value, live.headers) == (b"key 5", b"value", [("model", b"m")])
