"""The composition root: the only place that names concrete classes and makes them from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas.load import Schema
from worker.backup_wait import BackupWait
from worker.batching import Batcher
from worker.breaker import Breaker
from worker.clients import consumer_config, made, max_message_bytes, producer_config
from worker.compose_models import is_watched, watched_engines
from worker.compose_wire import Contracts, codecs, contracts
from worker.deadline import Deadline
from worker.decode import Decodes
from worker.engine import Engine, EngineSpec
from worker.errors import ContractError, FatalDeliveryError, UnreachableError
from worker.forecasting import Forecasting
from worker.freshness import Freshness
from worker.guard_reference import reference_of
from worker.guard_watch import Guard
from worker.hotswap import EngineSlot
from worker.logs import kafka_logger
from worker.loop import Timing, Worker
from worker.pipeline import Pipeline, Probe
from worker.plan_loading import Model, load_model, load_standby
from worker.preflight import Cluster, find_model
from worker.publish import Publisher, Routing
from worker.settings_model import Settings
from worker.source import KafkaSource, Source
from worker.standby import StandBy
from worker.statistics import Tallies
from worker.takeover import Takeover
from worker.transaction import Delivery, Flushed, Transaction, Watch
from worker.watchdog import Watchdog

INIT_TIMEOUT_S = 60.0
"""How long `init_transactions` may take: the coordinator may have to finish a predecessor's transaction first."""

INIT_REMEDIES: Mapping[int, str] = {
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "lower delivery.transaction_timeout_s, or raise transaction.max.timeout.ms "
    "of the brokers",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant this principal WRITE on delivery.transactional_id, or choose "
    "another id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this principal IDEMPOTENT_WRITE on the cluster",
}
"""Refusals that another start doesn't mend -> what to do."""


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def load_engine(settings: Settings, features: Schema) -> Engine:
    """The engine that `engine.model` names, held against its card and the feature schema.

    Raises `ContractError`, or `CardError` if the card is wrong by itself.
    """
    return _loaded(settings, settings.engine.model, features)


def load_engines(settings: Settings, features: Schema) -> EngineSlot:
    """The serving engine and, if `engine.backup` names one, its backup. Raises as `load_engine` does."""
    serving = load_engine(settings, features)
    return EngineSlot(serving, load_backup(settings, features, serving.spec))


def _loaded(settings: Settings, path: Path, features: Schema) -> Engine:
    model, card = find_model(path)
    return load_model(settings, model, card, features)


def load_backup(settings: Settings, features: Schema, serving: EngineSpec) -> Engine | None:
    """The engine that `engine.backup` names, None if it names none. Raises as `load_engine` does."""
    if settings.engine.backup is None:
        return None
    backup = _loaded(settings, settings.engine.backup, features)
    extra = {f"{name}[{width or 1}]" for name, width in backup.spec.inputs.items() - serving.inputs.items()}
    if extra:
        backup.close()
        raise ContractError(
            f"engine.backup: {backup.spec.model} {backup.spec.version} takes {', '.join(sorted(extra))}, which "
            f"{serving.model} {serving.version} doesn't; a backup computes the same rows again, so its inputs must be "
            "among the model's"
        )
    return backup


@contextmanager
def engines_of(settings: Settings, features: Schema, probe: Probe) -> Iterator[EngineSlot]:
    """The engines that serve and back up, with whatever looks after them. Leaving closes them all."""
    if is_watched(settings):
        backup = partial(load_backup, settings, features)
        with watched_engines(settings, features, backup, probe) as watched:
            yield watched
        return
    engines = load_engines(settings, features)
    try:
        yield engines
    finally:
        engines.close()


@contextmanager
def assembled(settings: Settings, *, probe: Probe = lambda _: None) -> Iterator[Worker]:
    """A worker made from `settings`, ready to `start`. Leaving closes everything it holds.

    What can be wrong is found here, in this order: schemas, model, registry, broker, topics; then `init_transactions`
    fences whoever used this transactional.id before.
    """
    with ExitStack() as cleanup:
        contract = contracts(settings)
        cleanup.callback(contract.close)
        engines = cleanup.enter_context(engines_of(settings, contract.features, probe))
        standby = standby_of(settings, contract, engines, cleanup)
        computing = Computing(engines=engines, standby=standby)
        cluster = Cluster(settings, kafka_logger())
        cluster.routing()  # so that a missing topic is found now
        cluster.check_message_sizes()
        with made("consumer"):
            consumer = Consumer(consumer_config(settings), logger=kafka_logger())
        source = KafkaSource(consumer, settings.input.topic, clock=time.monotonic)
        cleanup.callback(source.close)
        watchdog = Watchdog(time.monotonic)
        cleanup.callback(watchdog.close)
        watchdog.start()
        delivery = _delivery(settings, consumer, source, watchdog.watching)
        cleanup.callback(delivery.close)
        yield worker_of(settings, contract, computing, source, delivery, cluster.routing, probe)


def standby_of(settings: Settings, contract: Contracts, engines: EngineSlot, cleanup: ExitStack) -> StandBy:
    """The stand-by of engines that need a GPU: their own model in ONNX Runtime, loaded while all is well.

    Each version of a store brings its own. A single model's is loaded here.
    """
    only, alone = engines.serving, None
    if not engines.fitted:
        path, card = find_model(settings.engine.model)
        alone = load_standby(settings, Model(path=path, card=card), contract.features, only)
        if alone is not None:
            cleanup.callback(alone.close)
    return StandBy(
        lambda engine: alone if engine is only and alone is not None else engines.standby_of(engine),
        retry_s=settings.engine.standby_retry_s,
        probe_rows=settings.engine.halve_to_rows,
        clock=time.monotonic,
    )


def _guard(settings: Settings, engines: EngineSlot) -> Guard:
    """A guard that knows what each of the engines usually gives."""
    card_of = {settings.engine.backup: engines.backup}
    if not engines.fitted:  # else each version brings its own reference
        card_of[settings.engine.model] = engines.serving
    guard = Guard(settings.guard, {})
    for path, engine in card_of.items():
        if path is not None and engine is not None:
            card = find_model(path)[1]
            for digest in (engine.spec.digest, card.onnx_sha256):  # its stand-by is the card's own model
                guard.know(digest, reference_of(card))
    return guard


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """Who computes: the engines that serve and back up, and the stand-by of one that needs a GPU."""

    engines: EngineSlot
    standby: StandBy


def worker_of(  # noqa: PLR0913 - everything is injected
    settings: Settings,
    contract: Contracts,
    computing: Computing,
    source: Source,
    delivery: Delivery,
    routing: Callable[[], Routing],
    probe: Probe,
    select: Callable[[Decodes], Decodes] = lambda decoder: decoder,
    *,
    live: bool = True,
) -> Worker:
    """The loop and the pure parts around it. Opens nothing. `live`: see `Worker`."""
    batching, limits, engines = settings.batching, settings.breaker, computing.engines
    encode, decoder, dead_letters = codecs(settings, contract)
    tallies = Tallies()
    tallies.engine(engines.serving.spec)
    tallies.backup(None if engines.backup is None else engines.backup.spec)
    for engine in filter(None, (engines.serving, engines.backup)):
        encode(engine.spec)  # so that a forecast schema that doesn't fit is found now
        decoder.prepare(engine.spec.inputs)
    breaker = Breaker(rejected_share=limits.rejected_share, window_records=limits.window_records)
    batcher = Batcher(
        max_rows=batching.max_rows,
        linger_s=batching.linger_s,
        max_wait_s=batching.max_wait_s,
        coalesce=batching.coalesce,
    )
    publisher = Publisher(
        delivery=delivery,
        encoder_for=encode,
        dead_letters=dead_letters,
        tallies=tallies,
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        max_message_bytes=max_message_bytes(settings),
    )
    guard = _guard(settings, engines)
    takeover = Takeover(
        engines=engines,
        standby=computing.standby,
        wait=BackupWait(engines, most_s=settings.models.backup_wait_s, clock=time.monotonic),
        guard=guard,
        breaker=breaker,
        poison_rows=settings.guard.poison_rows,
        floor_rows=settings.engine.halve_to_rows,
        tallies=tallies,
    )
    pipeline = Pipeline(
        batcher=batcher,
        forecasting=Forecasting(
            takeover=takeover,
            guard=guard,
            without_backup=settings.guard.without_backup,
            tallies=tallies,
            clock=time.monotonic,
        ),
        publisher=publisher,
        breaker=breaker,
        delivery=delivery,
        routing=routing,
        tallies=tallies,
        commit_interval_s=settings.delivery.commit_interval_s,
        transaction_s=settings.delivery.transaction_timeout_s,
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        probe=probe,
        freshness=Freshness(window_s=settings.freshness.window_s, max_keys=settings.freshness.max_keys),
    )
    return Worker(
        source=source,
        decoder=select(decoder),
        batcher=batcher,
        pipeline=pipeline,
        breaker=breaker,
        tallies=tallies,
        timing=_timing(settings),
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        probe=probe,
        live=live,
    )


def _timing(settings: Settings) -> Timing:
    return Timing(
        poll_s=settings.input.poll_timeout_s,
        revoke_budget_s=settings.delivery.revoke_budget_s,
        schema_retry_s=settings.registry.retry_after_s,
    )


def _delivery(settings: Settings, consumer: Consumer, source: KafkaSource, watch: Watch) -> Delivery:
    failures: list[KafkaError] = []

    def failed(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    if settings.delivery.guarantee == "at_least_once":
        with made("producer"):
            producer = Producer({**producer_config(settings), "on_delivery": failed}, logger=kafka_logger())
        return Flushed(producer, consumer, failures, watch)
    return transaction(settings, source.group_metadata, watch)


def transaction(
    settings: Settings,
    group_metadata: Callable[[], object],
    watch: Watch,
    note: Callable[[int], str] = lambda _: "",
) -> Transaction:
    """A transaction under `delivery.transactional_id`. Fences whoever used it before.

    Raises `UnreachableError` for what the operator must mend, `FatalDeliveryError` else.
    """
    with made("producer"):
        producer = Producer(producer_config(settings), logger=kafka_logger())
    deadline = Deadline.after(INIT_TIMEOUT_S, time.monotonic)
    try:
        return Transaction(producer, group_metadata, deadline=deadline, watch=watch, note=note)
    except FatalDeliveryError as error:
        refused = error.__cause__.args[0] if isinstance(error.__cause__, KafkaException) else None
        if refused is None or refused.code() not in INIT_REMEDIES:
            raise
        raise UnreachableError(f"init_transactions: {refused.str()}; {INIT_REMEDIES[refused.code()]}") from error
