"""The composition root: the only place that names concrete classes and makes them from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas.load import Schema, load_schema
from worker.batching import Batcher
from worker.breaker import Breaker
from worker.clients import consumer_config, made, max_message_bytes, producer_config
from worker.deadline import Deadline
from worker.decode import Decoder
from worker.encode import DeadLetterEncoder, ForecastEncoder, echo_fields_of
from worker.engine import Engine, EngineSpec
from worker.errors import FatalDeliveryError, UnreachableError
from worker.framing import ConfluentFraming, Framing, SingleObjectFraming
from worker.hotswap import EngineSlot
from worker.logs import kafka_logger
from worker.loop import Timing, Worker
from worker.onnx_engine import OnnxEngine
from worker.pipeline import Pipeline, Probe
from worker.preflight import Cluster, find_model, rows_per_batch
from worker.publish import Publisher, Routing
from worker.registry import RegistrySchemas
from worker.settings_model import Settings
from worker.source import KafkaSource
from worker.statistics import Tallies
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Contracts:
    """The three schemas and how messages of each are framed. `close` ends what the framing holds open."""

    features: Schema
    forecast: Schema
    dead_letter: Schema
    framing: Framing
    close: Callable[[], None] = lambda: None


def contracts(settings: Settings) -> Contracts:
    """Load the schemas. With Confluent framing, also ask the registry for (or register) the output schemas' ids.

    Raises `SchemaError` if a file is wrong, `ContractError` if the registry refuses a schema, `UnreachableError` if it
    can't be asked.
    """
    wire = settings.wire
    features = load_schema(wire.features, "sku_features")
    forecast = load_schema(wire.forecast, "sku_forecast")
    dead_letter = load_schema(wire.dead_letter, "dead_letter")
    if wire.framing == "single_object":
        others = [load_schema(path, path.name) for path in wire.writer_schemas]
        framing: Framing = SingleObjectFraming([features, *others, forecast, dead_letter])
        return Contracts(features=features, forecast=forecast, dead_letter=dead_letter, framing=framing)
    registry = registry_of(settings)
    try:
        framing = _confluent_framing(settings, registry, forecast, dead_letter)
    except BaseException:
        registry.close()
        raise
    return Contracts(
        features=features, forecast=forecast, dead_letter=dead_letter, framing=framing, close=registry.close
    )


def load_engine(settings: Settings, features: Schema) -> Engine:
    """The engine that `engine.model` names, held against its card and the feature schema.

    Raises `ContractError`, or `CardError` if the card is wrong by itself.
    """
    model, card = find_model(settings.engine.model)
    return OnnxEngine.load(
        model,
        card,
        features,
        slots=settings.engine.slots,
        max_rows=rows_per_batch(settings, card),
        threads=settings.engine.threads,
    )


@contextmanager
def assembled(settings: Settings, *, probe: Probe = lambda _: None) -> Iterator[Worker]:
    """A worker made from `settings`, ready to `start`. Leaving closes everything it holds.

    What can be wrong is found here, in this order: schemas, model, registry, broker, topics; then `init_transactions`
    fences whoever used this transactional.id before.
    """
    with ExitStack() as cleanup:
        contract = contracts(settings)
        cleanup.callback(contract.close)
        engine = load_engine(settings, contract.features)
        cleanup.callback(engine.close)
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
        yield _worker(settings, contract, engine, source, delivery, cluster.routing, probe)


def _worker(
    settings: Settings,
    contract: Contracts,
    engine: Engine,
    source: KafkaSource,
    delivery: Delivery,
    routing: Callable[[], Routing],
    probe: Probe,
) -> Worker:
    """The loop and the pure parts around it. Opens nothing."""
    batching, limits = settings.batching, settings.breaker
    encode, decoder, dead_letters = _codecs(settings, contract, engine.spec)
    encode(engine.spec)  # so that a forecast schema that doesn't fit is found now
    tallies = Tallies()
    tallies.engine(engine.spec)
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
    pipeline = Pipeline(
        batcher=batcher,
        engines=EngineSlot(engine),
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
    )
    return Worker(
        source=source,
        decoder=decoder,
        batcher=batcher,
        pipeline=pipeline,
        breaker=breaker,
        tallies=tallies,
        timing=_timing(settings),
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        probe=probe,
    )


def _timing(settings: Settings) -> Timing:
    return Timing(
        poll_s=settings.input.poll_timeout_s,
        revoke_budget_s=settings.delivery.revoke_budget_s,
        schema_retry_s=settings.registry.retry_after_s,
    )


def _codecs(
    settings: Settings, contract: Contracts, spec: EngineSpec
) -> tuple[Callable[[EngineSpec], ForecastEncoder], Decoder, DeadLetterEncoder]:
    """What turns values into rows and forecasts into values."""
    echo_fields = echo_fields_of(contract.features, contract.forecast)
    prefix = contract.framing.prefix_for(contract.forecast)

    def encoder(engine: EngineSpec) -> ForecastEncoder:
        return ForecastEncoder(
            schema=contract.forecast,
            prefix=prefix,
            echo_fields=echo_fields,
            quantiles=engine.quantiles,
            horizon=engine.horizon,
        )

    decoder = Decoder(
        reader_schema=contract.features,
        inputs=spec.inputs,
        key_fields=settings.wire.key_fields,
        echo_fields=echo_fields,
        framing=contract.framing,
        max_value_bytes=settings.input.max_value_bytes,
    )
    dead_letters = DeadLetterEncoder(
        contract.dead_letter,
        contract.framing.prefix_for(contract.dead_letter),
        max_value_bytes=settings.input.max_value_bytes,
        max_message_bytes=max_message_bytes(settings),
    )
    return encoder, decoder, dead_letters


def registry_of(settings: Settings) -> RegistrySchemas:
    """The client of the registry that the settings name. Doesn't connect yet; whoever asks for it closes it."""
    auth = settings.registry
    return RegistrySchemas(
        url=auth.url or "",
        timeout_s=auth.timeout_s,
        basic_auth=(auth.username, auth.password.get_secret_value()) if auth.username and auth.password else None,
        ca_location=None if auth.ca_location is None else str(auth.ca_location),
    )


def _confluent_framing(settings: Settings, registry: RegistrySchemas, forecast: Schema, dead_letter: Schema) -> Framing:
    """Framing by a registry's schema ids, under the subjects that Confluent's clients use: topic name and '-value'."""
    id_of = registry.register if settings.registry.auto_register else registry.find
    outputs = {settings.output.topic: forecast, settings.output.dead_letter_topic: dead_letter}
    known = {id_of(f"{topic}-value", schema): schema for topic, schema in outputs.items()}
    return ConfluentFraming(ask=registry.schema, clock_s=time.monotonic, known=known)


def _delivery(settings: Settings, consumer: Consumer, source: KafkaSource, watch: Watch) -> Delivery:
    failures: list[KafkaError] = []

    def failed(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    config = producer_config(settings)
    if settings.delivery.guarantee == "at_least_once":
        with made("producer"):
            producer = Producer({**config, "on_delivery": failed}, logger=kafka_logger())
        return Flushed(producer, consumer, failures, watch)
    with made("producer"):
        producer = Producer(config, logger=kafka_logger())
    deadline = Deadline.after(INIT_TIMEOUT_S, time.monotonic)
    try:
        return Transaction(producer, source.group_metadata, deadline=deadline, watch=watch)
    except FatalDeliveryError as error:
        refused = error.__cause__.args[0] if isinstance(error.__cause__, KafkaException) else None
        if refused is None or refused.code() not in INIT_REMEDIES:
            raise
        raise UnreachableError(f"init_transactions: {refused.str()}; {INIT_REMEDIES[refused.code()]}") from error
