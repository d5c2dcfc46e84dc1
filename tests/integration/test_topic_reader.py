"""A topic read to an end that was fixed at the start: over markers, aborted records, empty partitions and deleted ones."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from demo.kafka import EmbeddedKafka
from tests.helpers.topics import produce, read_all
from worker.errors import UnreachableError
from worker.records import Span
from worker.topic_reader import TopicReader


def reader_of(kafka: EmbeddedKafka, topic: str) -> TopicReader:
    config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": "reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }
    return TopicReader(Consumer(config), topic, clock=time.monotonic)


def transactions(kafka: EmbeddedKafka, topic: str) -> Producer:
    """Partition 0: committed, aborted and committed records, then aborted ones at its end. Partition 1: aborted only."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30.0)
    plans: list[tuple[bool, list[int]]] = [(True, [0, 0]), (False, [0, 1]), (True, [0]), (False, [0, 0, 0])]
    for number, (is_committed, partitions) in enumerate(plans):
        producer.begin_transaction()
        for place, partition in enumerate(partitions):
            producer.produce(
                topic, value=b"%d" % number, key=b"k", partition=partition, timestamp=1000 * number + place
            )
        producer.flush(30.0)
        (producer.commit_transaction if is_committed else producer.abort_transaction)(30.0)
    return producer


def test_it_ends_over_markers_aborted_records_and_empty_partitions(kafka: EmbeddedKafka, topics: Any) -> None:
    topic = topics("reader", 3)
    transactions(kafka, topic)
    with reader_of(kafka, topic) as reader:
        spans = reader.spans()
        found = list(reader.read(spans))
        again = list(reader.read({0: spans[0]}))
    assert [record.value for record in found] == [b"0", b"0", b"2"]
    assert again == found
    assert {p: span.next_offset for p, span in spans.items()} == {0: 11, 1: 2, 2: 0}


def test_the_end_is_that_of_the_start_and_before_an_open_transaction(kafka: EmbeddedKafka, topics: Any) -> None:
    topic = topics("reader", 1)
    produce(kafka.bootstrap_servers, topic, [(b"k", b"%d" % i, i, 0) for i in range(10)])
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    producer.init_transactions(30.0)
    producer.begin_transaction()
    producer.produce(topic, value=b"open", partition=0)
    producer.flush(30.0)
    with reader_of(kafka, topic) as reader:
        spans = reader.spans()
        assert spans == {0: Span(0, 10)}
        reading = reader.read(spans)
        first = next(reading)
        producer.commit_transaction(30.0)
        produce(kafka.bootstrap_servers, topic, [(b"k", b"later", 1, 0)] * 5)
        assert [first.value, *(record.value for record in reading)] == [b"%d" % i for i in range(10)]
        assert [r.value for r in reader.read({0: Span(4, 6)})] == [b"4", b"5"]


def test_times_choose_the_span_and_what_was_deleted_is_passed_over(kafka: EmbeddedKafka, topics: Any) -> None:
    topic = topics("reader", 2)
    produce(kafka.bootstrap_servers, topic, [(b"k", b"%d" % i, 1000 * i + 1, i % 2) for i in range(20)])
    with reader_of(kafka, topic) as reader:
        chosen = reader.read(reader.spans_between(4000, 9000))
        assert sorted(int(r.value or b"") for r in chosen) == [4, 5, 6, 7, 8]
        assert list(reader.read(reader.spans_between(10**9, None))) == []
        spans = reader.spans()
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for future in admin.delete_records([TopicPartition(topic, 0, 6)]).values():
            future.result(30.0)
        assert sorted(int(r.value or b"") for r in reader.read(spans)) == [*range(1, 12, 2), *range(12, 20)]
        assert reader.spans()[0] == Span(6, 10)
    assert len(read_all(kafka.bootstrap_servers, topic)) == 14


def test_a_topic_that_is_not_there(kafka: EmbeddedKafka) -> None:
    with reader_of(kafka, "no-such-topic") as reader, pytest.raises(UnreachableError, match=r"topic no-such-topic: "):
        reader.spans()
