"""The part of the composition root that knows what messages look like: schemas, framing, encoders and decoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from schemas.load import Schema, load_schema
from worker.clients import max_message_bytes
from worker.decode import Decoder
from worker.decoders import Decoders
from worker.encode import DeadLetterEncoder, ForecastEncoder, echo_fields_of
from worker.engine import EngineSpec
from worker.framing import ConfluentFraming, Framing, SingleObjectFraming
from worker.registry import RegistrySchemas
from worker.settings_model import Settings


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
    return _contracts(settings, partial(_confluent_framing, settings))


def reading_contracts(settings: Settings) -> Contracts:
    """The same for who only reads: a registry is asked for schemas and told of none. Raises `SchemaError`."""
    return _contracts(
        settings,
        lambda registry, _, __: ConfluentFraming(ask=registry.schema, clock_s=time.monotonic, outage_ttl_s=0.0),
    )


def _contracts(settings: Settings, confluent: Callable[[RegistrySchemas, Schema, Schema], Framing]) -> Contracts:
    """`confluent`: the framing with a registry, of its client and the schemas of forecasts and dead letters."""
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
        framing = confluent(registry, forecast, dead_letter)
    except BaseException:
        registry.close()
        raise
    return Contracts(
        features=features, forecast=forecast, dead_letter=dead_letter, framing=framing, close=registry.close
    )


def codecs(
    settings: Settings, contract: Contracts
) -> tuple[Callable[[EngineSpec], ForecastEncoder], Decoders, DeadLetterEncoder]:
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

    def decoder(inputs: Mapping[str, int | None]) -> Decoder:
        return Decoder(
            reader_schema=contract.features,
            inputs=inputs,
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
    return encoder, Decoders(decoder), dead_letters


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
