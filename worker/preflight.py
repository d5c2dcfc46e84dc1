"""What must be there before the worker starts: a broker, its topics, the model. One clear sentence for each that isn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from logging import Logger
from pathlib import Path
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from schemas.asking import answered
from schemas.engine_card import CARD_NAME, EngineCard, load_card
from schemas.model_store import MODEL_NAME, current_name, is_store, open_version
from worker.clients import admin_config, made, max_message_bytes
from worker.deadline import Clock, Deadline
from worker.errors import ConfigurationError, ContractError, UnreachableError
from worker.publish import Routing
from worker.settings_model import Settings

T = TypeVar("T")

METADATA_TIMEOUT_S = 10.0
CREATE_TIMEOUT_S = 30.0

_VISIBLE_POLL_S = 0.2

_FORBIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Cluster:
    """The broker's view of topics. Blocks up to `METADATA_TIMEOUT_S` a call.

    clock: monotonic seconds. pause: waits for that many seconds.
    """

    def __init__(
        self,
        settings: Settings,
        logger: Logger,
        *,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._clock, self._pause = clock, pause
        with made("admin client"):
            self._admin = AdminClient(admin_config(settings), logger=logger)

    @property
    def admin(self) -> AdminClient:
        """For creating topics."""
        return self._admin

    def partitions(self) -> Mapping[str, int]:
        """Topic -> number of partitions, of every topic there is. Raises `UnreachableError` if no broker answers."""
        try:
            topics = self._answered(lambda timeout_s: self._admin.list_topics(timeout=timeout_s)).topics
        except KafkaException as exception:
            servers = self._settings.kafka.common.get("bootstrap.servers")
            raise UnreachableError(
                f"kafka.bootstrap.servers: no broker answers at {servers} within {METADATA_TIMEOUT_S:g} s "
                f"({exception.args[0].str()}); check address, port, TLS and SASL settings"
            ) from exception
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def config(self, topic: str) -> Mapping[str, str] | None:
        """The topic's own configuration; None if this principal may not ask for it. Raises `UnreachableError`."""
        resource = ConfigResource(ResourceType.TOPIC, topic)

        def ask(timeout_s: float) -> Mapping[str, ConfigEntry]:
            found = self._admin.describe_configs([resource], request_timeout=timeout_s)[resource]
            return dict(found.result(METADATA_TIMEOUT_S))

        try:
            entries = self._answered(ask)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() in _FORBIDDEN:
                return None
            raise UnreachableError(f"topic {topic}: asking for its configuration: {error.str()}") from exception
        return {name: entry.value for name, entry in entries.items() if entry.value is not None}

    def _answered(self, ask: Callable[[float], T]) -> T:
        """Asked again while a leader moves, or a new topic isn't known everywhere; see `answered`."""
        return answered(ask, METADATA_TIMEOUT_S, clock=self._clock, pause=self._pause)

    def check_message_sizes(self, topics: Sequence[str] | None = None) -> Sequence[str]:
        """Hold the largest message of `topics` (the outputs) against the producer's. Gives those that couldn't be asked.

        Raises `ConfigurationError` that names every topic which takes less than the producer may send: its batches are
        filled up to that limit, and one that the topic refuses would stop whoever writes at every restart.
        """
        limit_bytes = max_message_bytes(self._settings)
        writes = self._settings.output
        unknown, problems = [], []
        for topic in (writes.topic, writes.dead_letter_topic) if topics is None else topics:
            config = self.config(topic)
            if config is None:
                unknown.append(topic)
            elif int(config.get("max.message.bytes", limit_bytes)) < limit_bytes:
                problems.append(f"{topic} takes {config['max.message.bytes']} bytes at most")
        if problems:
            raise ConfigurationError(
                f"{'; '.join(problems)}, the producer sends up to {limit_bytes}; set message.max.bytes under "
                "[kafka.producer] to what the topics take, or raise the topics' max.message.bytes"
            )
        return unknown

    def ensure_topic(self, topic: str, config: Mapping[str, str]) -> bool:
        """Create `topic` with one partition if it isn't there; True if it was created. Raises `ConfigurationError`."""
        if topic in self.partitions():
            return False
        try:
            self._admin.create_topics([NewTopic(topic, num_partitions=1, config=dict(config))])[topic].result(
                CREATE_TIMEOUT_S
            )
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            settings = ", ".join(f"{key}={value}" for key, value in config.items())
            raise ConfigurationError(
                f"creating topic {topic}: {error.str()}; create it with one partition and {settings}, or allow this "
                "principal to"
            ) from exception
        return True

    def wait_for_topic(self, topic: str) -> None:
        """Return once the metadata shows `topic`: one that was just created isn't known to every broker at once.

        Raises `UnreachableError` after `CREATE_TIMEOUT_S`, or if no broker answers.
        """
        deadline = Deadline.after(CREATE_TIMEOUT_S, self._clock)
        while topic not in self.partitions():
            if deadline.expired:
                raise UnreachableError(
                    f"topic {topic}: not shown for {CREATE_TIMEOUT_S:g} s, although it was created; check that this "
                    "principal may describe it, and run the command again"
                )
            self._pause(_VISIBLE_POLL_S)

    def routing(self) -> Routing:
        """Where outputs go, by the topics as they are now. Raises `UnreachableError` naming every topic that is missing."""
        reads, writes = self._settings.input.topic, self._settings.output
        counts = self.partitions()
        missing = [topic for topic in (reads, writes.topic, writes.dead_letter_topic) if topic not in counts]
        if missing:
            raise UnreachableError(
                f"topics that don't exist: {', '.join(missing)}; create them with 'forecast-worker topics create', "
                "or correct input.topic, output.topic and output.dead_letter_topic"
            )
        return Routing(
            forecasts=writes.topic,
            dead_letters=writes.dead_letter_topic,
            same_partitions=counts[reads] == counts[writes.topic],
            same_dead_letter_partitions=counts[reads] == counts[writes.dead_letter_topic],
            headers=writes.headers,
        )


def find_model(path: Path) -> tuple[Path, EngineCard]:
    """The ONNX file that `engine.model` names and the card beside it: of a folder, a file, or a store's current version.

    Raises `ContractError` if either isn't there, `CardError` if the card is wrong, `StoreError` if the store is.
    """
    if is_store(path):
        version = open_version(path, current_name(path))
        return version.model, version.card
    model = path / MODEL_NAME if path.is_dir() else path
    if not model.is_file():
        raise ContractError(
            f"engine.model: there is no file {model}; expected a folder with {MODEL_NAME} and {CARD_NAME}"
        )
    card = model.with_name(CARD_NAME)
    if not card.is_file():
        raise ContractError(
            f"engine.model: {model} has no {CARD_NAME} beside it; publish the model together with its card"
        )
    return model, load_card(card)


def rows_per_batch(settings: Settings, card: EngineCard) -> int:
    """`batching.max_rows`, checked against what the engine can take."""
    limit = settings.engine.max_rows or card.profile.max_rows
    if limit > card.profile.max_rows:
        raise ContractError(f"engine.max_rows: got {limit}, the card's profile ends at {card.profile.max_rows}")
    if settings.batching.max_rows > limit:
        raise ContractError(
            f"batching.max_rows: got {settings.batching.max_rows}, the engine takes at most {limit} rows "
            f"(model {card.model} {card.version}); lower it, or build the engine with a larger profile"
        )
    return settings.batching.max_rows
