"""Before a replay begins: everything that can be wrong is found, then, and only then, something is written.

`Planner.plan` reads: span, target, name, model. `Planner.open` writes: topics, schemas, and the book's first page. Both
may be repeated; the second time there is nothing left to write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.asking import committed_of
from schemas.load import Schema, load_schema
from schemas.model_store import current_name, is_store, is_version_name, open_version
from worker.clients import consumer_config, made
from worker.compose import load_engines, transaction
from worker.compose_wire import contracts, registry_of
from worker.deadline import Clock, Deadline
from worker.errors import ConfigurationError, ContractError, UnreachableError
from worker.framing import SingleObjectFraming
from worker.logs import kafka_logger
from worker.preflight import Cluster, find_model
from worker.records import Positions, Span
from worker.replay_book import Arguments, Page, Totals, check_same, check_whole, page_from_note, partitions_text
from worker.replay_offsets import offsets_of
from worker.replay_request import Names, Request, arguments_of, replay_settings
from worker.replay_span import Edges, spans_from_edges
from worker.replay_target import check_subject, check_target, create_like, first_value, shape_of
from worker.settings_model import Settings
from worker.transaction import unwatched

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the broker keeps of one partition of a replay: how far it is, and its page."""

    offset: int
    page: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A replay that may begin, or go on. `resumed`: the name was known. `model`: the folder or file that computes."""

    request: Request
    names: Names
    model: Path
    pages: Mapping[int, Page]
    resumed: bool


def read_book(
    consumer: Consumer,
    topic: str,
    partitions: Sequence[int],
    *,
    clock: Clock = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[int, Entry]:
    """What is kept under the consumer's group; empty for a new name. Raises `ConfigurationError`, `UnreachableError`."""
    places = _committed(consumer, [TopicPartition(topic, partition) for partition in partitions], clock, pause)
    entries: dict[int, Entry] = {}
    for place in places:
        if place.offset is not None and place.offset >= 0:
            page = page_from_note(place.metadata, f"partition {place.partition}")
            entries[place.partition] = Entry(offset=place.offset, page=page)
    return entries


def _committed(
    consumer: Consumer, places: list[TopicPartition], clock: Clock, pause: Callable[[float], None]
) -> list[TopicPartition]:
    """The group's offsets. A coordinator that is moving or starting up is asked again."""
    try:
        return committed_of(consumer, places, TIMEOUT_S, clock=clock, pause=pause)
    except KafkaException as exception:
        error = exception.args[0]
        raise UnreachableError(
            f"asking for the replay's progress: {error.str()}; is the group's coordinator up? Run the same command again"
        ) from exception


class Planner:
    """Makes plans for one request. Close it after use."""

    def __init__(self, settings: Settings, request: Request) -> None:
        self._settings = settings
        self._request = request
        self._names = Names.of(settings, request)
        self._arguments: Arguments = arguments_of(settings, request)
        self._cleanup = ExitStack()
        self._cluster = Cluster(settings, kafka_logger())
        self._topic = settings.input.topic
        # Reads what is settled, without waiting for a killed predecessor's transaction to end.
        self._reader = self._consumer({"isolation.level": "read_uncommitted"})

    def close(self) -> None:
        """Leave."""
        self._cleanup.close()

    def plan(self) -> Plan:
        """Check everything; nothing is written. Raises `ConfigurationError` and its kin."""
        there = self._there()
        entries = read_book(self._reader, self._topic, there)  # of all partitions, whichever are chosen now
        partitions = self._chosen(there)
        if self._request.workers > len(partitions):
            raise ConfigurationError(
                f"--workers: got {self._request.workers}, expected {len(partitions)} at most, one for each partition"
            )
        plan = self._going_on(entries) if entries else self._new(partitions)
        settings = replay_settings(self._settings, self._request, plan.model, "check")
        features = load_schema(settings.wire.features, "sku_features")
        load_engines(settings, features, live=False).close()  # the backup, too
        self._check_targets(plan)
        return plan

    def open(self, plan: Plan) -> Plan:
        """Write what the plan needs: topics, schemas, and the book, in a transaction. The plan, as it is in the book."""
        self._create_topics()
        settings = replay_settings(self._settings, self._request, plan.model, "book")
        contracts(settings).close()  # registers the schemas, where there is a registry
        book = transaction(settings, self._reader.consumer_group_metadata, unwatched, lambda p: plan.pages[p].note())
        try:
            entries = read_book(self._reader, self._topic, self._there())  # somebody may have been faster
            if entries:
                return self._going_on(entries)
            starts = {p: Span(page.span.first_offset, page.span.first_offset) for p, page in plan.pages.items()}
            book.commit(Positions(self._topic, starts, 0), Deadline.after(TIMEOUT_S, time.monotonic))
        finally:
            book.close()
        return plan

    def _new(self, partitions: Sequence[int]) -> Plan:
        request = self._request
        edges = self._edges(partitions)
        spans = spans_from_edges(edges, request.since, request.until, allow_gaps=request.allow_gaps)
        model = self._model()
        _, card = find_model(model)
        pages = {
            partition: Page(
                arguments=self._arguments,
                partitions=partitions_text(spans),
                span=span,
                version=card.version,
                digest=card.onnx_sha256,
                totals=Totals(),
            )
            for partition, span in spans.items()
        }
        return Plan(request=request, names=self._names, model=model, pages=pages, resumed=False)

    def _going_on(self, entries: Mapping[int, Entry]) -> Plan:
        pages = {partition: entry.page for partition, entry in entries.items()}
        known = next(iter(pages.values()))
        check_same(known.arguments, self._arguments, self._request.name)
        check_whole(pages, self._request.name)
        if not self._request.allow_gaps:
            self._check_retention(entries)
        model = self._model(known)
        _, card = find_model(model)
        if card.onnx_sha256 != known.digest:
            raise ConfigurationError(
                f"--name {self._request.name} began with model version {known.version} ({known.digest[:12]}), {model} now "
                f"holds {card.version} ({card.onnx_sha256[:12]}): one replay has one model. Bring the old one back, or "
                "choose another name"
            )
        return Plan(request=self._request, names=self._names, model=model, pages=pages, resumed=True)

    def _check_retention(self, entries: Mapping[int, Entry]) -> None:
        low = offsets_of(self._cluster.admin, self._topic, list(entries), "earliest")
        gone = [
            f"partition {p}: stands at offset {entry.offset}, the oldest record left is at {low[p][0]}"
            for p, entry in sorted(entries.items())
            if entry.offset < min(low[p][0], entry.page.span.next_offset)
        ]
        if gone:
            raise ConfigurationError(
                "\n".join(
                    [
                        "records of the span were deleted since the replay began:",
                        *(f"  - {each}" for each in gone),
                        "say --allow-gaps to replay what is left",
                    ]
                )
            )

    def _model(self, known: Page | None = None) -> Path:
        """The model's folder: the version that is named, or that the replay began with, or that serves now."""
        store, wanted = self._settings.engine.model, self._request.model
        if not wanted and not is_store(store):
            return store
        if not wanted:
            return open_version(store, known.version if known else current_name(store)).folder
        if is_store(store) and is_version_name(wanted) and not Path(wanted).is_dir():
            return open_version(store, wanted).folder
        if not Path(wanted).exists():
            raise ContractError(
                f"--model: got {wanted!r}, expected a model's folder, or a version in the store that engine.model names "
                f"({store} is {'a store' if is_store(store) else 'no store: it has no CURRENT'})"
            )
        return Path(wanted)

    def _there(self) -> Sequence[int]:
        """All partitions of the input topic."""
        counts = self._cluster.partitions()
        live = self._settings.output
        missing = [topic for topic in (self._topic, live.topic, live.dead_letter_topic) if topic not in counts]
        if missing:
            raise UnreachableError(
                f"topics that don't exist: {', '.join(missing)}; correct input.topic, output.topic and "
                "output.dead_letter_topic, like which a replay's are made"
            )
        return range(counts[self._topic])

    def _chosen(self, there: Sequence[int]) -> Sequence[int]:
        chosen = self._request.partitions or tuple(there)
        if strange := [p for p in chosen if p not in there]:
            raise ConfigurationError(
                f"--partitions: got {', '.join(map(str, strange))}, but {self._topic} has 0 to {len(there) - 1}"
            )
        return chosen

    def _check_targets(self, plan: Plan) -> None:
        wire = self._settings.wire
        schemas = {
            self._names.forecasts: load_schema(wire.forecast, "sku_forecast"),
            self._names.dead_letters: load_schema(wire.dead_letter, "dead_letter"),
        }
        for topic, schema in schemas.items():
            is_live = topic == self._settings.output.topic
            self._check_target(topic, schema, begun=plan.resumed or is_live)

    def _check_target(self, topic: str, schema: Schema, *, begun: bool) -> None:
        registry = registry_of(self._settings) if self._settings.wire.framing == "confluent" else None
        if registry is not None:
            check_subject(registry, topic, schema)
            registry.close()
        shape = shape_of(self._cluster.admin, topic)
        if shape is None:
            return
        prefix = None if registry is not None else SingleObjectFraming([schema]).prefix_for(schema)
        reader = self._consumer({"enable.partition.eof": True, "fetch.wait.max.ms": 50})
        check_target(topic, first_value(reader, topic, shape.partitions), prefix, begun=begun)

    def _create_topics(self) -> None:
        live = self._settings.output
        for topic, model in zip(self._names.topics, (live.topic, live.dead_letter_topic), strict=True):
            if shape_of(self._cluster.admin, topic) is None:
                shape = shape_of(self._cluster.admin, model)
                if shape is None:
                    raise UnreachableError(
                        f"topic {model} doesn't exist; create it with 'forecast-worker topics create'"
                    )
                create_like(self._cluster.admin, topic, shape)
                self._cluster.wait_for_topic(topic)
                log.info("topic created", topic=topic, like=model)

    def _edges(self, partitions: Sequence[int]) -> Mapping[int, Edges]:
        since, until = self._request.since, self._request.until
        admin, topic = self._cluster.admin, self._topic
        low = offsets_of(admin, topic, partitions, "earliest")
        end = offsets_of(admin, topic, partitions, "stable")
        first = offsets_of(admin, topic, partitions, since.value) if since.kind == "time" else {}
        last = offsets_of(admin, topic, partitions, until.value) if until.kind == "time" else {}

        def known(found: Mapping[int, tuple[int, int]], partition: int) -> tuple[int, int] | None:
            place = found.get(partition)
            return None if place is None or place[0] < 0 else place

        return {
            p: Edges(low=low[p][0], stable_end=end[p][0], since=known(first, p), until=known(last, p))
            for p in partitions
        }

    def _consumer(self, extra: Mapping[str, object]) -> Consumer:
        settings = replay_settings(self._settings, self._request, self._settings.engine.model, "check")
        with made("consumer"):
            consumer = Consumer({**consumer_config(settings), **extra}, logger=kafka_logger())
        self._cleanup.callback(consumer.close)
        return consumer
