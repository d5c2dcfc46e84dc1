"""The parts of one process of a replay, made from its plan: the replay's composition root."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaException

from schemas.asking import ends_of
from schemas.load import Schema
from worker.clients import consumer_config, made
from worker.compose import load_engines, standby_of, transaction
from worker.compose_wire import contracts
from worker.compose_worker import Computing, worker_of
from worker.decode import Decodes
from worker.errors import UnreachableError
from worker.framing import Framing
from worker.logs import kafka_logger
from worker.loop import Worker
from worker.pipeline import Probe
from worker.preflight import Cluster
from worker.replay_book import latest_totals
from worker.replay_delivery import LiveGuard, ReplayDelivery
from worker.replay_engines import OneModel
from worker.replay_fresher import AsOfReader, Fresher
from worker.replay_keys import SelectingDecoder
from worker.replay_live import LiveTable
from worker.replay_plan import Entry, Plan, read_book
from worker.replay_request import Request, replay_settings
from worker.replay_source import SpanSource
from worker.replay_span import shares
from worker.replay_throttle import LiveLag, Throttle
from worker.settings_model import Settings
from worker.watchdog import Watchdog

log = structlog.get_logger(__name__)

ASK_TIMEOUT_S: Final = 10.0
FOLLOW: Final[Mapping[str, object]] = {"enable.partition.eof": True, "fetch.wait.max.ms": 20}
"""A consumer that is to hear of the end of a partition, and soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process of a replay works with."""

    worker: Worker
    source: SpanSource
    delivery: ReplayDelivery
    throttle: Throttle


@contextmanager
def assembled_part(settings: Settings, plan: Plan, number: int, *, probe: Probe = lambda _: None) -> Iterator[Part]:
    """Process `number` of the plan's. Entering fences a predecessor of the same name and number."""
    request = plan.request
    own = replay_settings(settings, request, plan.model, str(number))
    partitions = shares(list(plan.pages), request.workers)[number]
    with ExitStack() as cleanup:
        contract = contracts(own)
        cleanup.callback(contract.close)
        loaded = load_engines(own, contract.features, live=False)
        engines = OneModel(loaded.serving, loaded.backup)
        cleanup.callback(engines.close)
        standby = standby_of(own, contract, engines, cleanup)
        computing = Computing(engines=engines, standby=standby)
        cluster = Cluster(own, kafka_logger())
        cluster.routing()
        consumer = _consumer(own, cleanup, {"enable.partition.eof": True})
        watchdog = Watchdog(time.monotonic)
        cleanup.callback(watchdog.close)
        watchdog.start()
        pages = {p: plan.pages[p] for p in partitions}
        guard = _guard(own, cluster, cleanup, contract.forecast, contract.framing) if request.to_live else None
        delivery = ReplayDelivery(forecasts=plan.names.forecasts, pages=pages, guard=guard)
        delivery.attach(transaction(own, consumer.consumer_group_metadata, watchdog.watching, delivery.note))
        cleanup.callback(delivery.close)
        # Only now, as nobody else can commit any more: how far the replay is.
        book = read_book(consumer, own.input.topic, partitions)
        delivery.begin(latest_totals(entry.page for entry in book.values()))
        throttle = _throttle(settings, request, cluster, cleanup)
        source = SpanSource(
            consumer,
            own.input.topic,
            spans={p: page.span for p, page in pages.items()},
            committed=_starts(consumer, own.input.topic, book, allow_gaps=request.allow_gaps),
            allowance=throttle,
            clock=time.monotonic,
            wait=time.sleep,
            headers=own.output.headers,
        )
        select = _everything if request.keys is None else partial(SelectingDecoder, wanted=request.keys.__contains__)
        worker = worker_of(own, contract, computing, source, delivery, cluster.routing, probe, select, live=False)
        yield Part(worker=worker, source=source, delivery=delivery, throttle=throttle)


def _everything(decoder: Decodes) -> Decodes:
    return decoder


def _starts(consumer: Consumer, topic: str, book: Mapping[int, Entry], *, allow_gaps: bool) -> Mapping[int, int]:
    """Where each partition goes on: at the committed offset, or at what is left behind it if gaps are allowed."""
    starts = {partition: entry.offset for partition, entry in book.items()}
    if allow_gaps:
        for partition, offset in starts.items():
            try:
                low, _ = ends_of(consumer, topic, partition, ASK_TIMEOUT_S)
            except KafkaException as exception:
                raise UnreachableError(
                    f"asking for the oldest offset of {topic}[{partition}]: {exception.args[0].str()}; is its leader up? "
                    "Run the same command again"
                ) from exception
            starts[partition] = max(offset, low)
    return starts


def _guard(settings: Settings, cluster: Cluster, cleanup: ExitStack, forecast: Schema, framing: Framing) -> LiveGuard:
    """With `--to-live`: reads the live topic, which takes its time."""
    topic = settings.output.topic
    fresher, as_of = Fresher(), AsOfReader(forecast, framing.prefix_bytes)
    log.info("reading the live forecasts", topic=topic)
    table = LiveTable(
        _consumer(settings, cleanup, FOLLOW),
        cluster.admin,
        topic,
        cluster.partitions()[topic],
        as_of=as_of.read,
        fresher=fresher,
        clock=time.monotonic,
    )
    log.info("live forecasts read", topic=topic, keys=len(fresher))
    return LiveGuard(table, fresher, as_of, topic)


def _throttle(settings: Settings, request: Request, cluster: Cluster, cleanup: ExitStack) -> Throttle:
    limits, topic = settings.replay, settings.input.topic
    asker = _consumer(settings, cleanup, {})
    return Throttle(
        rate_per_s=None if request.rate_per_s is None else request.rate_per_s / request.workers,
        behind=LiveLag(asker, topic, range(cluster.partitions()[topic])),
        pause_above=limits.pause_above_lag_records,
        check_s=limits.lag_check_s,
        clock=time.monotonic,
    )


def _consumer(settings: Settings, cleanup: ExitStack, extra: Mapping[str, object]) -> Consumer:
    with made("consumer"):
        consumer = Consumer({**consumer_config(settings), **extra}, logger=kafka_logger())
    cleanup.callback(consumer.close)
    return consumer
