"""The part of the composition root that makes the loop and the pure parts around it. Opens nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.backup_wait import BackupWait
from worker.batching import Batcher
from worker.breaker import Breaker
from worker.clients import max_message_bytes
from worker.compose_wire import Contracts, codecs
from worker.decode import Decodes
from worker.encode import DeadLetterEncoder, ForecastEncoder
from worker.engine import EngineSpec
from worker.forecasting import Forecasting
from worker.freshness import Freshness
from worker.guard_reference import reference_of
from worker.guard_watch import Guard
from worker.hotswap import EngineSlot
from worker.loop import Timing, Worker
from worker.pipeline import Pipeline, Probe
from worker.preflight import find_model
from worker.publish import Publisher, Routing
from worker.settings_model import Settings
from worker.source import Source
from worker.standby import StandBy
from worker.statistics import Tallies
from worker.takeover import Takeover
from worker.transaction import Delivery
from worker.wall_clock import wall_clock_ms


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
    """The loop and the pure parts around it. `live`: see `Worker`."""
    engines = computing.engines
    encode, decoder, dead_letters = codecs(settings, contract)
    for engine in filter(None, (engines.serving, engines.backup)):
        encode(engine.spec)  # so that a forecast schema that doesn't fit is found now
        decoder.prepare(engine.spec.inputs)
    tallies, breaker, batcher = _tallies(engines), _breaker(settings), _batcher(settings)
    forecasting = _forecasting(settings, computing, breaker, tallies)
    publisher = _publisher(settings, delivery, encode, dead_letters, tallies)
    pipeline = _pipeline(
        settings, batcher, forecasting, publisher, breaker, tallies, probe, delivery=delivery, routing=routing
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


def _breaker(settings: Settings) -> Breaker:
    limits = settings.breaker
    return Breaker(rejected_share=limits.rejected_share, window_records=limits.window_records)


def _batcher(settings: Settings) -> Batcher:
    batching = settings.batching
    return Batcher(
        max_rows=batching.max_rows,
        linger_s=batching.linger_s,
        max_wait_s=batching.max_wait_s,
        coalesce=batching.coalesce,
    )


def _tallies(engines: EngineSlot) -> Tallies:
    tallies = Tallies()
    tallies.engine(engines.serving.spec)
    tallies.backup(None if engines.backup is None else engines.backup.spec)
    return tallies


def _publisher(
    settings: Settings,
    delivery: Delivery,
    encoder_for: Callable[[EngineSpec], ForecastEncoder],
    dead_letters: DeadLetterEncoder,
    tallies: Tallies,
) -> Publisher:
    return Publisher(
        delivery=delivery,
        encoder_for=encoder_for,
        dead_letters=dead_letters,
        tallies=tallies,
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        max_message_bytes=max_message_bytes(settings),
    )


def _pipeline(  # noqa: PLR0913 - everything is injected
    settings: Settings,
    batcher: Batcher,
    forecasting: Forecasting,
    publisher: Publisher,
    breaker: Breaker,
    tallies: Tallies,
    probe: Probe,
    *,
    delivery: Delivery,
    routing: Callable[[], Routing],
) -> Pipeline:
    return Pipeline(
        batcher=batcher,
        forecasting=forecasting,
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
        hold_s=settings.models.hold_s,
    )


def _forecasting(settings: Settings, computing: Computing, breaker: Breaker, tallies: Tallies) -> Forecasting:
    guard = _guard(settings, computing.engines)
    takeover = Takeover(
        engines=computing.engines,
        standby=computing.standby,
        wait=BackupWait(computing.engines, most_s=settings.models.backup_wait_s, clock=time.monotonic),
        guard=guard,
        breaker=breaker,
        poison_rows=settings.guard.poison_rows,
        floor_rows=settings.engine.halve_to_rows,
        tallies=tallies,
    )
    return Forecasting(
        takeover=takeover,
        guard=guard,
        without_backup=settings.guard.without_backup,
        tallies=tallies,
        clock=time.monotonic,
    )


def _timing(settings: Settings) -> Timing:
    return Timing(
        poll_s=settings.input.poll_timeout_s,
        revoke_budget_s=settings.delivery.revoke_budget_s,
        schema_retry_s=settings.registry.retry_after_s,
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
