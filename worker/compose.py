"""The composition root: the only place that names concrete classes and makes them from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas.load import Schema
from worker.clients import consumer_config, made, producer_config
from worker.compose_models import is_watched, watched_engines
from worker.compose_wire import Contracts, contracts
from worker.compose_worker import Computing, worker_of
from worker.deadline import Deadline
from worker.engine import Engine, EngineSpec
from worker.errors import ContractError, FatalDeliveryError, UnreachableError
from worker.hotswap import EngineSlot
from worker.logs import kafka_logger
from worker.loop import Worker
from worker.pipeline import Probe
from worker.plan_loading import Model, load_model, load_standby
from worker.preflight import Cluster, find_model
from worker.proving import prove, prove_sizes, refused_unless_proved, warm
from worker.settings_model import Settings
from worker.source import KafkaSource
from worker.standby import StandBy
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


def load_engine(settings: Settings, features: Schema, *, live: bool = True) -> Engine:
    """The engine that `engine.model` names, held against its card and the feature schema, proved and warm.

    live: somebody waits for its forecasts, so the card's latency budget counts.
    Raises `ContractError`, or `CardError` if the card is wrong by itself; `EngineError` if the device can't do it.
    """
    return _proved(settings, "engine.model", settings.engine.model, features, live=live)


def load_engines(settings: Settings, features: Schema, *, live: bool = True) -> EngineSlot:
    """The serving engine and, if `engine.backup` names one, its backup. Raises as `load_engine` does."""
    serving = load_engine(settings, features, live=live)
    try:
        return EngineSlot(serving, load_backup(settings, features, serving.spec, live=live))
    except BaseException:
        serving.close()
        raise


def _proved(settings: Settings, setting: str, path: Path, features: Schema, *, live: bool) -> Engine:
    """As `loading.Loader` does it, but at the normal priority: nothing is computed beside it yet. What can't count isn't timed."""
    model, card = find_model(path)
    engine = load_model(settings, model, card, features)
    with refused_unless_proved(engine, setting):
        prove(engine, card)
        if live and card.latency_budget_ms is not None:
            warm(engine, card, time.monotonic)
        else:
            prove_sizes(engine, card)
    return engine


def load_backup(settings: Settings, features: Schema, serving: EngineSpec, *, live: bool = True) -> Engine | None:
    """The engine that `engine.backup` names, None if it names none. Raises as `load_engine` does."""
    if settings.engine.backup is None:
        return None
    backup = _proved(settings, "engine.backup", settings.engine.backup, features, live=live)
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

    What can be wrong is found here, in this order: schemas, model (which is proved), registry, broker, topics; then `init_transactions`
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

    Each version of a store brings its own. A single model's is loaded and proved here; raises as `load_engine` does.
    """
    only, alone = engines.serving, None
    if not engines.fitted:
        path, card = find_model(settings.engine.model)
        alone = load_standby(settings, Model(path=path, card=card), contract.features, only)
        if alone is not None:
            with refused_unless_proved(alone, "engine.standby"):
                prove(alone, card)
            cleanup.callback(alone.close)
    return StandBy(
        lambda engine: alone if engine is only and alone is not None else engines.standby_of(engine),
        retry_s=settings.engine.standby_retry_s,
        probe_rows=settings.engine.halve_to_rows,
        clock=time.monotonic,
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
