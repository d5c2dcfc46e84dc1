"""`forecast-worker models`: what is published, what every worker runs, and commands to all of them.

Reads the model's folder and the fleet's topics, and writes to the control topic only: no write access to the folder is needed.
"""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from schemas.model_store import is_store
from worker.clients import control_consumer_config, control_producer_config, made
from worker.control import Command, Commands, Kind, WorkerState, decode_command, decode_state, encode_command
from worker.deadline import Deadline
from worker.errors import ConfigurationError, UnreachableError
from worker.fleet import FLUSH_S, READ_S, ControlReader
from worker.logs import kafka_logger
from worker.settings_model import Settings
from worker.store_listing import StoreView, model_name
from worker.version_choice import Listing, VersionId, choose
from worker.wall_clock import wall_clock_ms

MISSED_HEARTBEATS = 3
"""A worker that was silent for longer isn't there any more; it may have been killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that a command needs to know, at one moment: `now_ms`, milliseconds since 1970.

    states: of this model's workers, which repeat them every `heartbeat_s`.
    """

    model: str
    listing: Listing
    unreadable: dict[str, str]
    commands: Commands
    states: tuple[WorkerState, ...]
    now_ms: int
    heartbeat_s: float

    def version(self, name: str) -> VersionId:
        """The published version `name`, else one that a command in force names. Raises `ConfigurationError`."""
        found = self.listing.named(name)
        told = [command.version for command in self.in_force if command.version.name == name]
        if found is None and not told:
            there = ", ".join(version.name for version in self.listing.versions) or "none"
            raise ConfigurationError(f"VERSION: got {name}, which isn't published; there are: {there}")
        return found or told[-1]

    @property
    def in_force(self) -> list[Command]:
        """The commands about this model that weren't taken back, oldest first."""
        mine = [each for each in self.commands.newest.values() if each.model == self.model and not each.released]
        return sorted(mine, key=lambda command: command.at_ms)

    def taken_back(self, name: str) -> list[Command]:
        """What `release NAME` takes back: the commands about the published bytes, else about others of that name."""
        published = self.listing.named(name)
        named = [command for command in self.in_force if command.version.name == name]
        return [command for command in named if command.version == published] or named

    @property
    def serving(self) -> VersionId | None:
        """What most workers serve, of those that are heard of; without a word from any, what the rules choose."""
        running = [state.serving for state in self.states if self.is_heard(state)]
        if running:
            return max(set(running), key=lambda version: (running.count(version), version))
        return choose(self.listing, self.commands.of(self.model), refused={}, serving=None).target

    def is_heard(self, state: WorkerState) -> bool:
        """Whether that worker has repeated its state lately: one that was killed takes nothing back, and stays for ever."""
        return self.now_ms - state.at_ms <= MISSED_HEARTBEATS * self.heartbeat_s * 1000


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Do what `arguments.action` says; the exit code."""
    view = look(settings)
    if arguments.action == "list":
        sys.stdout.writelines(f"{line}\n" for line in shown(view))
        return 0
    by = arguments.by or f"{getpass.getuser()}@{socket.gethostname()}"
    commands = made_command(view, arguments, by)
    _send(settings, commands)
    for command in commands:
        done = "released" if command.released else "in force"
        sys.stdout.write(f"{command.kind} {command.version}: {done}\n")
    return 0


def look(settings: Settings) -> View:
    """The folder and the topics as they are now. Raises `ConfigurationError` if a part isn't there."""
    store = settings.engine.model
    if not is_store(store):
        raise ConfigurationError(
            f"engine.model: {store} isn't a folder of versions with CURRENT; publish a version first"
        )
    model = model_name(store)
    view = StoreView(store, model)
    listing = view.look()
    commands = Commands.none()

    def command(key: bytes, value: bytes | None) -> None:
        nonlocal commands
        commands = commands.without(key) if value is None else commands.after(decode_command(value))

    states: dict[bytes, WorkerState] = {}

    def state(key: bytes, value: bytes | None) -> None:
        states.pop(key, None)
        if value is not None:
            states[key] = decode_state(value)

    fleet = settings.fleet
    for topic, take in ((fleet.control_topic, command), (fleet.state_topic, state)):
        if topic is not None:
            _read(settings, topic, take)
    mine = tuple(each for _, each in sorted(states.items()) if each.model == model)
    return View(
        model=model,
        listing=listing,
        unreadable=view.unreadable,
        commands=commands,
        states=mine,
        now_ms=wall_clock_ms(),
        heartbeat_s=fleet.heartbeat_s,
    )


def made_command(view: View, arguments: argparse.Namespace, by: str) -> list[Command]:
    """What to send for `arguments`. Raises `ConfigurationError` if there is nothing that it could mean."""
    action = arguments.action
    if action == "rollback":
        version = view.serving
        if version is None:
            raise ConfigurationError("rollback: no version serves; name one: forecast-worker models quarantine VERSION")
        reason = arguments.reason or "rolled back by hand"
        return [_command(view, Kind.QUARANTINE, version, reason, by)]
    version = view.version(arguments.version)
    if action == "release":
        found = view.taken_back(arguments.version)
        if not found:
            raise ConfigurationError(f"release: no command about version {version} is in force")
        reason = arguments.reason or "released"
        return [_command(view, each.kind, each.version, reason, by, released=True) for each in found]
    kind = Kind(action)
    if kind is not Kind.QUARANTINE and version in view.commands.of(view.model).quarantined:
        raise ConfigurationError(f"{action}: version {version} is quarantined; release it first if it is sound")
    return [_command(view, kind, version, arguments.reason or f"{action} by hand", by)]


def shown(view: View) -> Iterator[str]:
    """The lines of `models list`."""
    control = view.commands.of(view.model)
    yield f"model {view.model}, CURRENT names {view.listing.current or 'nothing that can be read'}"
    chosen = choose(view.listing, control, refused={}, serving=view.serving)
    for version in reversed(view.listing.versions):
        marks = ["chosen"] if version == chosen.target else []
        marks += [f"quarantined: {control.quarantined[version]}"] if version in control.quarantined else []
        marks += ["pinned"] if version == control.pin else []
        marks += ["promoted"] if control.promotion is not None and version == control.promotion.version else []
        refused = sorted({state.refused[version.name] for state in view.states if version.name in state.refused})
        marks += [f"refused: {reason}" for reason in refused]
        yield f"  {version}{': ' if marks else ''}{'; '.join(marks)}"
    for name, problem in sorted(view.unreadable.items()):
        yield f"  {name}: unreadable: {problem}"
    yield from (f"note: {note}" for note in chosen.notes)
    yield f"workers: {len(view.states) or 'none has said what it runs'}"
    yield from (_worker_line(view, state) for state in view.states)


def _worker_line(view: View, state: WorkerState) -> str:
    age_s = max(0, view.now_ms - state.at_ms) // 1000
    parts = [f"serves {state.serving}"]
    parts += [f"backup {state.backup}"] if state.backup else []
    parts += [f"shadow {state.shadow}"] if state.shadow else []
    parts += [f"HELD: {state.held}"] if state.held else []
    lost = "" if view.is_heard(state) else ", so it was probably killed"
    return f"  {state.worker}: {', '.join(parts)}; said {age_s} s ago{lost}"


def _command(view: View, kind: Kind, version: VersionId, reason: str, by: str, *, released: bool = False) -> Command:
    over = view.listing.named(view.listing.current) if kind is Kind.PROMOTE and not released else None
    return Command(
        model=view.model,
        kind=kind,
        version=version,
        reason=reason,
        by=by,
        at_ms=view.now_ms,
        released=released,
        over=over,
    )


def _read(settings: Settings, topic: str, take: Callable[[bytes, bytes | None], None]) -> None:
    with made("consumer"):
        consumer = Consumer(control_consumer_config(settings), logger=kafka_logger())
    reader = ControlReader(consumer, topic, take)
    try:
        reader.start()
        reader.read_to_end(Deadline.after(READ_S, time.monotonic))
    finally:
        reader.close()


def _send(settings: Settings, commands: list[Command]) -> None:
    topic = settings.fleet.control_topic
    if topic is None:
        raise ConfigurationError(
            "fleet.control_topic: got nothing, expected the topic that the workers listen to, e.g. model-control"
        )
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    with made("producer"):
        producer = Producer(control_producer_config(settings), logger=kafka_logger())
    try:
        for command in commands:
            producer.produce(topic, key=command.key, value=encode_command(command), on_delivery=delivered)
    except KafkaException as exception:
        refused.append(exception.args[0])
    if producer.flush(FLUSH_S) or refused:
        reason = refused[0].str() if refused else f"no broker took it within {FLUSH_S:g} s"
        raise UnreachableError(f"fleet.control_topic: writing to {topic}: {reason}")
