"""A real Apache Kafka broker (KRaft, broker and controller in one process) for the demo, the tests and the benches.

`python -m demo.kafka` starts one with a schema registry, prints their addresses and runs until interrupted.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from demo.artifacts import Progress, kafka_jars
from demo.jvm import HOST, JvmServer, ServerError
from demo.registry import EmbeddedRegistry

# Measured on two cores: boots in 1.7 s with these, 2.1 s with the JVM's defaults.
FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_BROKER = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",  # a misspelt topic is an error, as in production
    # One node: nothing has a second replica, and internal topics need no width.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Groups settle and fail over in seconds, so that a test of it takes seconds.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # After a crash the controller first has to see the broker's old session end; 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Events carry the time of what they describe, which may be years ago; the default would delete them after 7 days.
    "log.retention.ms": "-1",
    # Small machine.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": "8388608",
}


class EmbeddedKafka(JvmServer):
    """A broker of its own, empty, inside a `with` block.

    `partitions` is how many a topic gets that isn't given a number. `config` adds to or replaces broker properties. `heap` and
    `jvm_options` are for benches; `progress` is told of downloads (at the first use only). Set the variable `KAFKA_LIBS` to a
    directory with Kafka's jars to use those, and `JAVA` to choose the runtime.

    Raises:
        See `JvmServer`.
    """

    name = "Embedded Kafka"
    port_count = 2

    def __init__(
        self,
        *,
        partitions: int = 4,
        progress: Progress | None = None,
        config: Mapping[str, str] | None = None,
        heap: str = "768m",
        jvm_options: Sequence[str] = FAST_START,
        startup_timeout_s: float = 60.0,
    ) -> None:
        super().__init__(progress=progress, heap=heap, jvm_options=jvm_options, startup_timeout_s=startup_timeout_s)
        self.partitions = partitions
        self._config = dict(config or {})
        self._class_path = ""

    @property
    def bootstrap_servers(self) -> str:
        """For clients' `bootstrap.servers`; the same after a restart."""
        return f"{HOST}:{self.ports[0]}"

    def create_topic(
        self, name: str, partitions: int | None = None, config: Mapping[str, str] | None = None, timeout_s: float = 30.0
    ) -> None:
        """Create a topic and wait until every partition's leader answers.

        Raises:
            KafkaException: the broker refused (it exists, a bad name, a bad setting).
            ServerError: they don't within `timeout_s`.
        """
        count = partitions or self.partitions
        admin = self._admin()
        topic = NewTopic(name, num_partitions=count, replication_factor=1, config=dict(config or {}))
        admin.create_topics([topic], operation_timeout=timeout_s)[name].result(timeout_s)
        deadline = time.monotonic() + timeout_s
        while not _is_served(admin, name, count):
            if time.monotonic() >= deadline:
                raise ServerError(f"topic {name} isn't served after {timeout_s:g} s. The log:\n{self.log_tail()}")
            time.sleep(0.02)

    def properties(self) -> dict[str, str]:
        """The broker's configuration, as in `server.properties`."""
        broker, controller = (f"{HOST}:{port}" for port in self.ports)
        addresses = {
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.directory / "data"),
            "num.partitions": str(self.partitions),
        }
        return {**_BROKER, **addresses, **self._config}

    def _install(self, progress: Progress | None) -> None:
        if libs := os.environ.get("KAFKA_LIBS"):
            self._class_path = str(Path(libs) / "*")
        else:
            self._class_path = os.pathsep.join(str(jar) for jar in kafka_jars(progress))

    def _prepare(self) -> None:
        lines = [f"{key}={value}" for key, value in self.properties().items()]
        (self.directory / "server.properties").write_text("\n".join(lines) + "\n")
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        # 16 bytes in base64, as the tool wants it; a leading zero byte keeps it from starting with "-", as an option does.
        cluster = base64.urlsafe_b64encode(bytes(1) + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        format_storage = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", "server.properties"]
        self.run_tool("formatting the storage", [*self._java_class_path(), *format_storage])

    def _arguments(self) -> list[str]:
        return [*self._java_class_path(), "kafka.Kafka", "server.properties"]

    def _java_class_path(self) -> list[str]:
        return ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", self._class_path]

    def _is_ready(self) -> bool:
        try:
            return bool(
                self._admin().list_topics(timeout=2.0).brokers
            )  # lists brokers that serve, not those that start
        except KafkaException:
            return False

    def _admin(self) -> AdminClient:
        # A refused connection is expected here, and librdkafka would print each.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 2})


def _is_served(admin: AdminClient, topic: str, count: int) -> bool:
    """Asks the leaders themselves: for a moment after the metadata names a leader, it refuses (NOT_LEADER_OR_FOLLOWER)."""
    try:
        found = admin.list_topics(topic, timeout=5.0).topics[topic].partitions
        if len(found) < count or any(partition.leader < 0 for partition in found.values()):
            return False
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = admin.list_offsets({TopicPartition(topic, number): latest for number in found}, request_timeout=5.0)
        return all(answer.result(5.0) is not None for answer in asked.values())
    except KafkaException:
        return False


def main() -> None:
    """Broker and registry until interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), EmbeddedKafka() as kafka, EmbeddedRegistry() as registry:
        print(f"kafka    {kafka.bootstrap_servers}\nregistry {registry.url}\nCtrl-C ends both.", flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
