from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from demo import jvm
from demo.jvm import HOST, ServerError, free_ports
from demo.kafka import EmbeddedKafka
from tests.conftest import TopicFactory
from tests.helpers.child import Child
from tests.helpers.processes import pid_of, process_exists
from tests.helpers.topics import Stored, produce, read_all
from tests.helpers.waiting import wait_until

LONG_AGO_MS = 1_467_331_200_000  # 2016-07-01

HOLDER = """
import signal, time
from demo.kafka import EmbeddedKafka
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
with EmbeddedKafka() as kafka:
    print(kafka.pid, kafka.directory, flush=True)
    time.sleep(600)
"""


def test_reads_back_what_was_produced_with_keys_timestamps_and_partitions(
    kafka: EmbeddedKafka, topics: TopicFactory
) -> None:
    topic = topics(partitions=2)
    produce(
        kafka.bootstrap_servers,
        topic,
        [(b"a", b"1", LONG_AGO_MS, 1), (b"b", None, LONG_AGO_MS + 1, 0), (None, b"3", LONG_AGO_MS + 2, 1)],
    )
    assert read_all(kafka.bootstrap_servers, topic) == [
        Stored(0, 0, b"b", None, LONG_AGO_MS + 1),
        Stored(1, 0, b"a", b"1", LONG_AGO_MS),
        Stored(1, 1, None, b"3", LONG_AGO_MS + 2),
    ]


def test_an_empty_topic_reads_as_nothing(kafka: EmbeddedKafka, topics: TopicFactory) -> None:
    assert read_all(kafka.bootstrap_servers, topics()) == []


@pytest.fixture
def transactional(kafka: EmbeddedKafka, request: pytest.FixtureRequest) -> Producer:
    name = request.node.name
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name})
    producer.init_transactions(30.0)
    return producer


def send(producer: Producer, topic: str, value: bytes) -> None:
    producer.produce(topic, value=value, partition=0)
    assert producer.flush(30.0) == 0


def values(kafka: EmbeddedKafka, topic: str) -> tuple[list[bytes | None], list[bytes | None]]:
    """Committed values, and all values."""
    committed = read_all(kafka.bootstrap_servers, topic, "read_committed")
    every = read_all(kafka.bootstrap_servers, topic, "read_uncommitted")
    return [message.value for message in committed], [message.value for message in every]


def test_an_aborted_transaction_is_seen_only_uncommitted(
    kafka: EmbeddedKafka, topics: TopicFactory, transactional: Producer
) -> None:
    topic = topics(partitions=1)
    transactional.begin_transaction()
    send(transactional, topic, b"kept")
    transactional.commit_transaction(30.0)
    transactional.begin_transaction()
    send(transactional, topic, b"dropped")
    transactional.abort_transaction(30.0)
    assert values(kafka, topic) == ([b"kept"], [b"kept", b"dropped"])


def test_an_open_transaction_is_not_waited_for(
    kafka: EmbeddedKafka, topics: TopicFactory, transactional: Producer
) -> None:
    topic = topics(partitions=1)
    transactional.begin_transaction()
    send(transactional, topic, b"open")
    assert values(kafka, topic) == ([], [b"open"])
    transactional.commit_transaction(30.0)
    assert values(kafka, topic) == ([b"open"], [b"open"])


def test_topics_are_created_as_asked_and_never_by_accident(kafka: EmbeddedKafka, topics: TopicFactory) -> None:
    topic = topics(partitions=3, config={"cleanup.policy": "compact"})
    with pytest.raises(KafkaException, match="already exists"):
        kafka.create_topic(topic)
    with pytest.raises(AssertionError, match="refused by no-such-topic"):
        produce(kafka.bootstrap_servers, "no-such-topic", [(b"k", b"v", LONG_AGO_MS, 0)])


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_both_group_protocols_are_served(kafka: EmbeddedKafka, topics: TopicFactory, protocol: str) -> None:
    topic = topics(partitions=2)
    produce(kafka.bootstrap_servers, topic, [(b"k", b"v", LONG_AGO_MS, partition) for partition in (0, 1)])
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": topic,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
        }
    )
    found: set[int | None] = set()

    def both_read() -> bool:
        found.update(message.partition() for message in consumer.consume(10, 0.1))
        return found == {0, 1}

    try:
        consumer.subscribe([topic])
        wait_until(both_read, f"a message of each partition read by a {protocol} group")
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedKafka]:
    """A broker that these tests may stop."""
    with EmbeddedKafka(partitions=1) as kafka:
        yield kafka


@pytest.mark.kafka
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_keeps_address_and_data(own: EmbeddedKafka, end: str) -> None:
    own.create_topic(end)
    produce(own.bootstrap_servers, end, [(b"k", b"before", LONG_AGO_MS, 0)])
    address, first = own.bootstrap_servers, pid_of(own)
    getattr(own, end)()
    assert pid_of(own) is None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, own.ports[0]))
    own.start()
    assert own.bootstrap_servers == address
    assert pid_of(own) not in {None, first}
    produce(own.bootstrap_servers, end, [(b"k", b"after", LONG_AGO_MS, 0)])
    assert [message.value for message in read_all(address, end)] == [b"before", b"after"]


@pytest.mark.kafka
def test_leaves_nothing_behind_when_closed() -> None:
    with EmbeddedKafka() as kafka:
        pid, directory = kafka.pid, kafka.directory
        assert pid is not None
        assert process_exists(pid)
        assert directory.is_dir()
    assert not process_exists(pid)
    assert not directory.exists()
    with pytest.raises(ServerError, match="closed"):
        kafka.start()


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_leaves_nothing_behind_when_its_parent_dies(number: signal.Signals) -> None:
    with Child([sys.executable, "-c", HOLDER]) as holder:
        holder.wait_until(lambda: holder.output.endswith("\n"), "it has a broker")
        pid, directory = holder.output.split()
        assert process_exists(int(pid))
        holder.send(number)
        holder.wait()
    wait_until(lambda: not process_exists(int(pid)), "the broker is gone")
    wait_until(lambda: not Path(directory).exists(), "its directory is gone")


@pytest.mark.kafka
def test_takes_other_ports_when_somebody_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as taken:
        ports = iter([(taken.getsockname()[1], free_ports(1)[0]), free_ports(2)])
        monkeypatch.setattr(jvm, "free_ports", lambda _count: next(ports))
        with EmbeddedKafka() as kafka:
            assert kafka.ports[0] != taken.getsockname()[1]
            kafka.create_topic("works")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"log.retention.ms": "soon"}, "(?s)ended with code 1.*log.retention.ms"),
        ({"group.consumer.heartbeat.interval.ms": "0"}, "(?s)ended with code 1.*heartbeat"),
    ],
)
def test_a_broker_that_does_not_come_up_says_why_and_leaves_nothing(config: dict[str, str], message: str) -> None:
    kafka = EmbeddedKafka(config=config)
    with pytest.raises(ServerError, match=message), kafka:
        pass
    assert kafka.pid is None
    assert not kafka.directory.exists()


@pytest.mark.kafka
def test_a_broker_that_is_too_slow_says_so() -> None:
    kafka = EmbeddedKafka(startup_timeout_s=30.0)
    kafka._is_ready = lambda: False  # type: ignore[method-assign]
    kafka._startup_timeout_s = 4.0
    with pytest.raises(ServerError, match="didn't answer on port"), kafka:
        pass
    assert not kafka.directory.exists()
