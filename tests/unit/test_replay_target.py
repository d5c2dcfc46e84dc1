from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import ConfigSource  # type: ignore[attr-defined] # untyped there

from tests.helpers.clock import ManualClock
from tests.helpers.confluent import TOPIC, FakeMessage, kafka_error
from tests.helpers.logs_of_offsets import LogConsumer
from tests.helpers.questions import Answers, refused, topic_of
from worker.errors import ConfigurationError, UnreachableError
from worker.replay_target import TIMEOUT_S, Shape, check_target, create_like, first_value, shape_of

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


class Trouble(Target):
    """Gives `fails` for the first polls, each of which takes a second."""

    def __init__(self, fails: KafkaError, times: int, clock: ManualClock) -> None:
        super().__init__({0: [0]}, {0: 1})
        self.fails = fails
        self._times = times
        self._clock = clock

    def poll(self, timeout: float) -> Message | None:
        self._clock.advance(min(1.0, timeout))
        self._times -= 1
        if self._times < 0:
            self.fails = None
        return super().poll(timeout)


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_what_passes_is_waited_for(code: int) -> None:
    clock = ManualClock()
    target = Trouble(kafka_error(code), 3, clock)
    assert first_value(target.as_consumer, TOPIC, 1, clock=clock) == b"value"


def test_trouble_that_stays_is_no_end() -> None:
    clock = ManualClock()
    target = Trouble(kafka_error(KafkaError._TRANSPORT), 1000, clock)
    with pytest.raises(UnreachableError, match=r"reading in: reason .*; run the same command again"):
        first_value(target.as_consumer, TOPIC, 1, clock=clock)
    assert clock() == pytest.approx(1000 + TIMEOUT_S)


def test_any_other_error_is_said_at_once() -> None:
    clock = ManualClock()
    target = Trouble(kafka_error(KafkaError.TOPIC_AUTHORIZATION_FAILED), 1000, clock)
    with pytest.raises(UnreachableError, match="reading in: reason 29"):
        first_value(target.as_consumer, TOPIC, 1, clock=clock)
    assert clock() == 1001


# -- asking for a topic, and making one -------------------------------------------------------------------------------


def future(answer: Any) -> Future[Any]:
    made: Future[Any] = Future()
    if isinstance(answer, BaseException):
        made.set_exception(answer)
    else:
        made.set_result(answer)
    return made


class Admin:
    """Answers about the topic `t`."""

    def __init__(self, topics: Answers, configs: Answers | None = None, created: Any = None) -> None:
        self._topics = topics
        self._configs = configs or Answers({})
        self._created = created

    def list_topics(self, timeout: float) -> Any:
        return self._topics(timeout)

    def describe_configs(self, resources: list[Any], request_timeout: float) -> Any:
        return {resources[0]: future(self._configs(request_timeout))}

    def create_topics(self, new: list[Any], operation_timeout: float) -> Any:  # noqa: ARG002
        return {new[0].topic: future(self._created)}


def entry(value: str | None, source: ConfigSource = ConfigSource.DYNAMIC_TOPIC_CONFIG) -> Any:
    return SimpleNamespace(value=value, source=source.value)


def shape(admin: Any) -> Shape | None:
    clock = ManualClock()
    return shape_of(admin, "t", clock=clock, pause=clock.advance)


def test_a_topics_shape_is_its_width_its_copies_and_its_own_settings() -> None:
    configs = {"a": entry("1"), "b": entry("2", ConfigSource.DEFAULT_CONFIG), "c": entry(None)}
    found = shape(Admin(Answers(topic_of((0, 1, 2), replicas=3, topic="t")), Answers(configs)))
    assert found == Shape(partitions=3, replication=3, config={"a": "1"})


@pytest.mark.parametrize("answer", [topic_of(topic="another"), topic_of(topic="t", error=3)])
def test_a_topic_that_is_not_there_has_none(answer: Any) -> None:
    assert shape(Admin(Answers(answer))) is None


def test_a_topic_that_settles_is_there() -> None:
    """It used to count as missing, and making it failed, because it was there."""
    topics = Answers(topic_of(topic="t", error=KafkaError.LEADER_NOT_AVAILABLE), topic_of((0,), topic="t"))
    configs = Answers(refused(KafkaError.UNKNOWN_TOPIC_OR_PART), {})
    assert shape(Admin(topics, configs)) == Shape(partitions=1, replication=1, config={})


def test_a_topic_that_nobody_can_tell_of_is_an_error() -> None:
    with pytest.raises(UnreachableError, match="asking for topic t: reason 29; are its brokers up"):
        shape(Admin(Answers(topic_of(topic="t", error=KafkaError.TOPIC_AUTHORIZATION_FAILED))))


def test_a_topic_that_somebody_else_just_made_is_made() -> None:
    made = Shape(partitions=1, replication=1, config={})
    for answer in (None, refused(KafkaError.TOPIC_ALREADY_EXISTS)):
        admin: Any = Admin(Answers({}), created=answer)
        create_like(admin, "t", made)
    admin = Admin(Answers({}), created=refused(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(
        ConfigurationError, match="creating topic t: reason 29; create it by hand, with the settings of"
    ):
        create_like(admin, "t", made)
