"""The part of the composition root that makes engines and what looks after their versions."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer

from schemas.engine_card import EngineCard
from schemas.load import Schema
from schemas.model_store import is_store
from worker.clients import control_consumer_config, control_producer_config, made
from worker.control import Commands
from worker.device_room import DeviceRoom
from worker.engine import Engine, EngineSpec
from worker.first_version import first_version
from worker.fleet import Fleet
from worker.handover import Handover
from worker.hotswap import EngineSlot
from worker.loading import Loader, Room
from worker.logs import kafka_logger
from worker.memory_room import host_free_bytes
from worker.model_thread import ModelThread, Watching
from worker.pipeline import Probe
from worker.plan_loading import Machine, Model, load_model, load_standby, this_machine
from worker.settings_model import Settings
from worker.shadow import Bounds
from worker.shadow_run import Trial
from worker.store_listing import StoreView, model_name
from worker.swapper import Policy, Swapper
from worker.wall_clock import wall_clock_ms


@contextmanager
def watched_engines(
    settings: Settings, features: Schema, last_resort: Callable[[EngineSpec], Engine | None], probe: Probe
) -> Iterator[EngineSlot]:
    """The engines of the store that `engine.model` names, and threads that look after its versions. Leaving ends them all.

    features: the feature schema. last_resort: the engine that `engine.backup` names, proved. Raises `ContractError` if no version can
    serve, `StoreError` if the folder can't be read, `UnreachableError` if the fleet's topics aren't there.
    """
    store = settings.engine.model
    model = model_name(store)
    handover = Handover()
    with ExitStack() as cleanup:
        fleet = _fleet(settings, handover, probe)
        commands = Commands.none
        if fleet is not None:
            cleanup.callback(fleet.close)
            told = fleet
            fleet.read(model)
            commands = lambda: told.commands  # noqa: E731 - a property, read anew each time
        view = StoreView(store, model)
        loader = _loader(settings, features, probe)
        first = first_version(view, loader, commands(), model, older=settings.models.older_at_start)
        fitted = first.loaded.fitted
        try:
            backup = last_resort(fitted.engine.spec)
        except BaseException:
            fitted.close()
            raise
        slot = EngineSlot(fitted.engine, backup, handover=handover, versions=[fitted], probe=probe)
        cleanup.callback(slot.close)
        swapper = Swapper(
            policy=_policy(settings, model),
            view=view,
            loader=loader,
            handover=handover,
            first=first,
            clock=time.monotonic,
            commands=commands,
            tell=(lambda _: None) if fleet is None else fleet.tell,
            probe=probe,
        )
        watching = Watching(store=store, how=settings.models.watch, interval_s=settings.models.interval_s)
        thread = ModelThread(swapper, handover, watching)
        cleanup.callback(thread.close)
        if fleet is not None:
            fleet.start()
        thread.start()
        yield slot


def is_watched(settings: Settings) -> bool:
    """Whether `engine.model` is a folder of versions, rather than one model."""
    return is_store(settings.engine.model)


def worker_name(settings: Settings) -> str:
    """What this worker is called among the others."""
    return settings.delivery.transactional_id or f"{socket.gethostname()}-{os.getpid()}"


def _policy(settings: Settings, model: str) -> Policy:
    shadow = settings.shadow
    bounds = Bounds(
        rows=shadow.rows,
        max_wape=shadow.max_wape,
        max_bias=shadow.max_bias,
        max_width_ratio=shadow.max_width_ratio,
        max_latency_ratio=shadow.max_latency_ratio,
    )
    trial = Trial(share=shadow.share, max_time_share=shadow.max_time_share, bounds=bounds)
    return Policy(
        model=model,
        worker=worker_name(settings),
        keep_backup=settings.models.keep_backup,
        trial=trial if shadow.enabled else None,
    )


def _loader(settings: Settings, features: Schema, probe: Probe) -> Loader:
    machine = this_machine()

    def make(path: Path, card: EngineCard) -> Engine:
        return load_model(settings, path, card, features, machine)

    def make_standby(path: Path, card: EngineCard, engine: Engine) -> Engine | None:
        return load_standby(settings, Model(path=path, card=card), features, engine)

    return Loader(
        store=settings.engine.model,
        make=make,
        make_standby=make_standby,
        room=_room(settings, machine),
        clock=time.monotonic,
        probe=probe,
    )


def _room(settings: Settings, machine: Machine) -> Room:
    device = DeviceRoom(settings, machine)
    return Room(
        slots=settings.engine.slots,
        max_rows=settings.batching.max_rows,
        headroom_bytes=settings.models.headroom_bytes,
        host_free=host_free_bytes,
        device=device.memory,
        device_bytes=device.needed_bytes,
    )


def _fleet(settings: Settings, handover: Handover, probe: Probe) -> Fleet | None:
    topics = settings.fleet
    if topics.control_topic is None:
        return None
    with made("consumer"):
        consumer = Consumer(control_consumer_config(settings), logger=kafka_logger())
    with made("producer"):
        producer = Producer(control_producer_config(settings), logger=kafka_logger())
    return Fleet(
        consumer=consumer,
        producer=producer,
        control_topic=topics.control_topic,
        state_topic=topics.state_topic,
        worker=worker_name(settings),
        handover=handover,
        heartbeat_s=topics.heartbeat_s,
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        probe=probe,
    )
