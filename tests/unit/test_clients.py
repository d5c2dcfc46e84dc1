import logging
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from worker.clients import admin_config, consumer_config, made, max_message_bytes, producer_config
from worker.errors import ConfigurationError
from worker.settings_checks import MIN_MESSAGE_BYTES, disagreements
from worker.settings_model import DeliverySettings, EngineSettings, InputSettings, KafkaSettings, Settings


def settings(**sections: Any) -> Settings:
    return Settings(engine=EngineSettings(model=Path("model")), **sections)


def exactly_once(**more: Any) -> Settings:
    return settings(delivery=DeliverySettings(transactional_id="worker-0"), **more)


def test_the_consumer_commits_nothing_by_itself_and_reads_what_is_committed() -> None:
    config = consumer_config(settings())
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
    assert config["isolation.level"] == "read_committed"
    assert config["group.id"] == "forecast-worker"
    assert "group.instance.id" not in config


def test_classic_groups_are_cooperative_and_the_new_protocol_leaves_that_to_the_broker() -> None:
    classic = consumer_config(settings())
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"
    assert "group.protocol" not in classic
    new = consumer_config(settings(input=InputSettings(group_protocol="consumer")))
    assert new["group.protocol"] == "consumer"
    assert "partition.assignment.strategy" not in new


@pytest.mark.parametrize(("reset", "expected"), [("earliest", "earliest"), ("latest", "latest"), ("fail", "error")])
def test_offset_reset_has_librdkafkas_names(reset: str, expected: str) -> None:
    reads = InputSettings.model_validate({"offset_reset": reset})
    assert consumer_config(settings(input=reads))["auto.offset.reset"] == expected


def test_static_members_and_memory() -> None:
    config = consumer_config(settings(input=InputSettings(group_instance_id="pod-1", memory_bytes=8 << 20)))
    assert config["group.instance.id"] == "pod-1"
    assert config["queued.max.messages.kbytes"] == 8192


def test_the_producer_is_transactional_or_only_idempotent() -> None:
    config = producer_config(exactly_once())
    assert config["transactional.id"] == "worker-0"
    assert config["transaction.timeout.ms"] == 15_000
    plain = producer_config(settings(delivery=DeliverySettings(guarantee="at_least_once")))
    assert not {"transactional.id", "transaction.timeout.ms"} & plain.keys()
    for each in (config, plain):
        assert each["enable.idempotence"] is True
        assert each["partitioner"] == "murmur2_random"


def test_the_operator_wins_over_defaults_and_the_clients_own_table_over_the_common_one() -> None:
    kafka = KafkaSettings(
        common={"bootstrap.servers": "broker:9092", "client.id": "both"},
        consumer={"fetch.wait.max.ms": 7, "client.id": "reader"},
        producer={"linger.ms": 50, "retry.backoff.ms": 20},
    )
    reader, writer = consumer_config(exactly_once(kafka=kafka)), producer_config(exactly_once(kafka=kafka))
    assert (reader["bootstrap.servers"], reader["client.id"], reader["fetch.wait.max.ms"]) == (
        "broker:9092",
        "reader",
        7,
    )
    assert (writer["bootstrap.servers"], writer["client.id"], writer["linger.ms"]) == ("broker:9092", "both", 50)
    assert writer["retry.backoff.ms"] == 20
    assert admin_config(exactly_once(kafka=kafka)) == {"bootstrap.servers": "broker:9092", "client.id": "both"}


def test_what_the_guarantees_rest_on_wins_over_the_operator() -> None:
    kafka = KafkaSettings(
        consumer={"enable.auto.commit": True, "isolation.level": "read_uncommitted"},
        producer={"enable.idempotence": False, "transactional.id": "another"},
    )
    reader, writer = consumer_config(exactly_once(kafka=kafka)), producer_config(exactly_once(kafka=kafka))
    assert (reader["enable.auto.commit"], reader["isolation.level"]) == (False, "read_committed")
    assert (writer["enable.idempotence"], writer["transactional.id"]) == (True, "worker-0")


def test_librdkafka_takes_all_of_it() -> None:
    """It refuses unknown names and wrong values when a client is made, before any broker is asked."""
    quiet = logging.getLogger("test_clients")
    quiet.disabled = True
    for reads in (InputSettings(), InputSettings(group_protocol="consumer", group_instance_id="pod-1")):
        Consumer(consumer_config(exactly_once(input=reads)), logger=quiet).close()
    for delivery in (DeliverySettings(transactional_id="a"), DeliverySettings(guarantee="at_least_once")):
        assert Producer(producer_config(settings(delivery=delivery)), logger=quiet).flush(0) == 0
    AdminClient(admin_config(settings()), logger=quiet)


@pytest.mark.parametrize("given", [{}, {"message.max.bytes": 2_000_000}, {"message.max.bytes": "65536"}])
def test_the_largest_message_is_the_producers_and_its_default_librdkafkas(given: dict[str, Any]) -> None:
    for kafka in (KafkaSettings(common=given), KafkaSettings(producer=given)):
        assert max_message_bytes(exactly_once(kafka=kafka)) == int(given.get("message.max.bytes", 1_000_000))
    producer = Producer({"bootstrap.servers": "localhost:1"}, logger=logging.getLogger("kafka"))
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        producer.produce("topic", b"x" * (max_message_bytes(exactly_once()) + 1))


@pytest.mark.parametrize("size", [1000, "1e6", "", -70_000, True, MIN_MESSAGE_BYTES - 1])
def test_messages_that_are_too_small_for_a_dead_letter_are_refused(size: Any) -> None:
    kafka = KafkaSettings(common={"bootstrap.servers": "b:1"}, producer={"message.max.bytes": size})
    (problem,) = disagreements({KafkaSettings: kafka})
    assert problem.startswith("kafka.producer.message.max.bytes: got")


@pytest.mark.parametrize(
    ("kafka", "said"),
    [({"no.such.key": "x"}, "no.such.key"), ({"acks": "maybe"}, "acks"), ({"error_cb": "x"}, "error_cb")],
)
def test_what_librdkafka_refuses_is_a_configuration_error(kafka: dict[str, Any], said: str) -> None:
    expected = rf"kafka settings of the producer: .*{said}.*; correct the key"
    with pytest.raises(ConfigurationError, match=expected), made("producer"):
        Producer({"bootstrap.servers": "localhost:1", **kafka})
