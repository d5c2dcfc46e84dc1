from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import KafkaError, Message

from tests.helpers.confluent import TOPIC, FakeMessage, kafka_error
from tests.helpers.logs_of_offsets import LogConsumer
from worker.errors import ConfigurationError, UnreachableError
from worker.replay_target import check_target, first_value

PREFIX = b"\xc3\x01fingerpr"


def test_an_empty_target_or_our_own_is_fine() -> None:
    check_target("t", None, PREFIX, begun=False)
    check_target("t", PREFIX + b"forecast", PREFIX, begun=True)
    check_target("t", b"\x00\x00\x00\x00\x07forecast", None, begun=True)


def test_records_of_another_schema_are_refused_whoever_wrote_them() -> None:
    for begun in (True, False):
        with pytest.raises(
            ConfigurationError, match=r"topic t: holds records of another schema: got one that starts with"
        ):
            check_target("t", b"something else", PREFIX, begun=begun)


def test_records_without_a_memory_of_them_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no progress is kept for this --name"):
        check_target("t", PREFIX + b"forecast", PREFIX, begun=False)


class Target(LogConsumer):
    """Also polled, one message at a time."""

    fails: KafkaError | None = None

    def unassign(self) -> None:
        self.assign([])

    def poll(self, timeout: float) -> Message | None:
        if self.fails is not None:
            return cast(Message, FakeMessage(error=self.fails))
        return next(iter(self.consume(1, timeout)), None)


def test_the_first_value_is_found_also_where_older_ones_were_deleted() -> None:
    target = Target({0: [], 1: [7]}, {0: 5, 1: 9})
    target.low = {0: 5, 1: 6}
    assert first_value(target.as_consumer, TOPIC, 2) == b"value"
    assert first_value(Target({0: [], 1: []}, {0: 5, 1: 0}).as_consumer, TOPIC, 2) is None


def test_an_error_is_no_end() -> None:
    target = Target({0: [0]}, {0: 1})
    target.fails = kafka_error(KafkaError._TRANSPORT)
    with pytest.raises(UnreachableError, match=r"reading in: reason .*; run the same command again"):
        first_value(target.as_consumer, TOPIC, 1)
