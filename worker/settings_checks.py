"""Do the settings agree with each other and with what the worker does itself? Invariant 14.                    (pure)

Each check names the settings, what they are, what is expected and what to change. A check runs once the sections that it
compares are valid in themselves, so that every problem shows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from worker.settings_model import (
    BatchingSettings,
    DeliverySettings,
    EngineSettings,
    InputSettings,
    KafkaSettings,
    OutputSettings,
    RegistrySettings,
    ShutdownSettings,
    WireSettings,
)
from worker.settings_replay import ReplaySettings
from worker.settings_section import Section
from worker.settings_versions import ModelsSettings

OWNED: Mapping[str, str] = {
    "group.id": "set input.group_id instead",
    "group.protocol": "set input.group_protocol instead",
    "group.instance.id": "set input.group_instance_id instead",
    "auto.offset.reset": "set input.offset_reset instead",
    "partition.assignment.strategy": "set input.group_protocol instead (classic groups are always cooperative-sticky)",
    "enable.auto.commit": "set delivery.commit_interval_s instead (the worker commits by itself)",
    "auto.commit.enable": "set delivery.commit_interval_s instead (the worker commits by itself)",
    "auto.commit.interval.ms": "set delivery.commit_interval_s instead",
    "enable.auto.offset.store": "remove it (the worker commits by itself)",
    "enable.partition.eof": "remove it (the worker follows partitions without an end)",
    "isolation.level": "remove it (the worker reads committed events only)",
    "queued.max.messages.kbytes": "set input.memory_bytes instead",
    "transactional.id": "set delivery.transactional_id instead",
    "transaction.timeout.ms": "set delivery.transaction_timeout_s instead",
    "enable.idempotence": "set delivery.guarantee instead (the producer is idempotent with either)",
    "acks": "remove it (always all: delivery.guarantee depends on it)",
    "request.required.acks": "remove it (always all: delivery.guarantee depends on it)",
    "delivery.report.only.error": "remove it (the worker looks at failed deliveries only)",
    "metadata.broker.list": "set kafka.bootstrap.servers instead",
    "partitioner": "remove it (a forecast goes to its event's partition, or to the one that Java clients choose)",
}
"""librdkafka keys that the worker sets itself -> what to do instead."""

MIN_MESSAGE_BYTES = 65_536
"""The least `message.max.bytes`. What is larger than that setting becomes a dead letter, which is cut to fit."""

_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type")


@dataclass(frozen=True, slots=True)
class Check:
    """`find` takes the valid sections of these types, in this order, and gives the problems."""

    sections: tuple[type[Section], ...]
    find: Callable[..., Iterator[str]]


def disagreements(valid: Mapping[type[Section], Section]) -> list[str]:
    """The problems between sections, one sentence each. Checks of sections that aren't in `valid` are left out."""
    return [
        problem
        for check in CHECKS
        if all(section in valid for section in check.sections)
        for problem in check.find(*(valid[section] for section in check.sections))
    ]


def _kafka(kafka: KafkaSettings) -> Iterator[str]:
    for side, values in (("", kafka.common), ("consumer.", kafka.consumer), ("producer.", kafka.producer)):
        for key in values:
            if key in OWNED:
                yield f"kafka.{side}{key}: the worker sets this itself; {OWNED[key]}"
            elif key == "bootstrap.servers" and side:
                yield (
                    f"kafka.{side}{key}: got a value, expected none, because a transaction can't span two clusters; "
                    "set kafka.bootstrap.servers instead"
                )
    if not str(kafka.common.get("bootstrap.servers", "")).strip():
        yield (
            "kafka.bootstrap.servers: got nothing, expected host:port of at least one broker; "
            'write "bootstrap.servers" = "broker:9092" under [kafka]'
        )


def _message_size(kafka: KafkaSettings) -> Iterator[str]:
    for side, values in (("", kafka.common), ("producer.", kafka.producer)):
        size = values.get("message.max.bytes", MIN_MESSAGE_BYTES)
        if not str(size).isdecimal() or int(size) < MIN_MESSAGE_BYTES:
            yield (
                f"kafka.{side}message.max.bytes: got {size}, expected an integer of at least {MIN_MESSAGE_BYTES}, so that "
                "forecasts and dead letters fit; raise it"
            )


def _group(kafka: KafkaSettings, source: InputSettings) -> Iterator[str]:
    if source.group_protocol != "consumer":
        return
    for side, values in (("", kafka.common), ("consumer.", kafka.consumer)):
        for key in _CLASSIC_ONLY:
            if key in values:
                yield (
                    f'kafka.{side}{key}: not allowed with input.group_protocol = "consumer", where the broker decides; '
                    "remove it, or set input.group_protocol to classic"
                )


def _topics(source: InputSettings, output: OutputSettings) -> Iterator[str]:
    names = {
        "input.topic": source.topic,
        "output.topic": output.topic,
        "output.dead_letter_topic": output.dead_letter_topic,
    }
    for first, second in (
        ("input.topic", "output.topic"),
        ("input.topic", "output.dead_letter_topic"),
        ("output.topic", "output.dead_letter_topic"),
    ):
        if names[first] == names[second]:
            yield f"{second}: got {names[second]!r}, which {first} is too, expected another topic; rename one of them"


def _framing(wire: WireSettings, registry: RegistrySettings) -> Iterator[str]:
    if wire.framing == "confluent" and registry.url is None:
        yield (
            "registry.url: got nothing, expected a URL, because wire.framing is confluent; "
            "set registry.url, or wire.framing to single_object"
        )
    if wire.framing == "confluent" and wire.writer_schemas:
        yield (
            "wire.writer_schemas: got some, expected none, because wire.framing is confluent and the registry knows them; "
            "remove the setting"
        )


def _registry(registry: RegistrySettings) -> Iterator[str]:
    if registry.url is not None and "@" in registry.url.partition("://")[2].partition("/")[0]:
        yield (
            "registry.url: holds a user name or password, expected none (URLs are logged); "
            "set registry.username and registry.password instead"
        )
    if (registry.username is None) != (registry.password is None):
        have, lack = ("username", "password") if registry.password is None else ("password", "username")
        yield f"registry.{lack}: got nothing, expected a value, because registry.{have} is set; set both or neither"


def _batch(batching: BatchingSettings, engine: EngineSettings) -> Iterator[str]:
    if engine.max_rows is not None and batching.max_rows > engine.max_rows:
        yield (
            f"batching.max_rows: got {batching.max_rows}, expected at most engine.max_rows = {engine.max_rows}; "
            "lower the first or raise the second"
        )


def _waits(batching: BatchingSettings) -> Iterator[str]:
    if batching.linger_s > batching.max_wait_s:
        yield (
            f"batching.linger_s: got {batching.linger_s}, expected at most batching.max_wait_s = {batching.max_wait_s}; "
            "lower the first or raise the second"
        )


def _delivery(delivery: DeliverySettings) -> Iterator[str]:
    if delivery.guarantee == "exactly_once" and delivery.transactional_id is None:
        yield (
            "delivery.transactional_id: got nothing, expected a name, because delivery.guarantee is exactly_once; "
            "give each instance its own and keep it over restarts (in Kubernetes the pod name of a StatefulSet, "
            "elsewhere e.g. the host name and a number): a random one leaves open transactions that hold readers up"
        )
    spent_s = delivery.commit_interval_s + delivery.revoke_budget_s
    if spent_s >= delivery.transaction_timeout_s:
        yield (
            f"delivery.transaction_timeout_s: got {delivery.transaction_timeout_s}, expected more than "
            f"commit_interval_s + revoke_budget_s = {spent_s:g}, or the broker aborts transactions that still finish; "
            "raise it, or lower one of the others"
        )


def _hold(models: ModelsSettings, delivery: DeliverySettings) -> Iterator[str]:
    bound_s = delivery.transaction_timeout_s - delivery.revoke_budget_s - delivery.commit_interval_s
    if models.hold_s >= bound_s > 0:
        yield (
            f"models.hold_s: got {models.hold_s}, expected less than delivery.transaction_timeout_s - revoke_budget_s - "
            f"commit_interval_s = {bound_s:g}; lower it, or raise delivery.transaction_timeout_s"
        )


def _oldest_row(batching: BatchingSettings, delivery: DeliverySettings) -> Iterator[str]:
    bound_s = delivery.transaction_timeout_s - delivery.revoke_budget_s
    if batching.max_wait_s >= bound_s > 0:
        yield (
            f"batching.max_wait_s: got {batching.max_wait_s}, expected less than delivery.transaction_timeout_s - "
            f"delivery.revoke_budget_s = {bound_s:g}; lower it"
        )


def _replay(replay: ReplaySettings, delivery: DeliverySettings) -> Iterator[str]:
    if replay.commit_interval_s >= delivery.transaction_timeout_s:
        yield (
            f"replay.commit_interval_s: got {replay.commit_interval_s}, expected less than "
            f"delivery.transaction_timeout_s = {delivery.transaction_timeout_s}; lower the first or raise the second"
        )


def _stop(delivery: DeliverySettings, shutdown: ShutdownSettings) -> Iterator[str]:
    if shutdown.grace_s < delivery.revoke_budget_s:
        yield (
            f"shutdown.grace_s: got {shutdown.grace_s}, expected at least delivery.revoke_budget_s = "
            f"{delivery.revoke_budget_s}, which leaving the group may take; raise the first or lower the second"
        )


CHECKS: tuple[Check, ...] = (
    Check((KafkaSettings,), _kafka),
    Check((KafkaSettings,), _message_size),
    Check((KafkaSettings, InputSettings), _group),
    Check((InputSettings, OutputSettings), _topics),
    Check((WireSettings, RegistrySettings), _framing),
    Check((RegistrySettings,), _registry),
    Check((BatchingSettings, EngineSettings), _batch),
    Check((BatchingSettings,), _waits),
    Check((DeliverySettings,), _delivery),
    Check((ModelsSettings, DeliverySettings), _hold),
    Check((BatchingSettings, DeliverySettings), _oldest_row),
    Check((ReplaySettings, DeliverySettings), _replay),
    Check((DeliverySettings, ShutdownSettings), _stop),
)
