"""What workers of one model tell each other, over two compacted topics: commands to all, and what each worker runs.

Threads: one of its own, the only one that touches the clients. It reads the control topic from its beginning with a consumer
without a group (`assign`), so every worker sees every command; it writes what this worker's guard found and what it runs.
It meets the others in `handover.py`: it writes `quarantined`, reads `left`, and puts `Look` for the loader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from types import MappingProxyType

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.asking import UNKNOWN, partitions_of
from worker.control import (
    Command,
    Commands,
    ControlError,
    Kind,
    WorkerState,
    decode_command,
    encode_command,
    encode_state,
)
from worker.deadline import Clock, Deadline
from worker.errors import UnreachableError
from worker.handover import Handover, Left, Look
from worker.version_choice import VersionId

log = structlog.get_logger(__name__)

POLL_S = 0.05
METADATA_S = 10.0
READ_S = 30.0
"""How long reading the control topic to its end may take at the start. It is compacted, so it is short."""
FLUSH_S = 5.0
AGAIN_S = 1.0
"""Pause before a quarantine that wasn't delivered is sent again."""
AFTER_AN_ERROR_S = 1.0
DENIED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
REMEDY = "are the brokers reachable, and may this principal read it?"


class ControlReader:
    """Follows a compacted topic from its beginning. Gives each message to `take(key, value)`; None: withdrawn.

    clock: monotonic. pause: waits for so many seconds, before a broker is asked again.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        take: Callable[[bytes, bytes | None], None],
        *,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._take = take
        self._clock = clock
        self._pause = pause
        self._unfinished: set[int] = set()
        self._trouble: KafkaError | None = None

    def start(self) -> None:
        """Begin to read. Raises `UnreachableError` if the topic isn't there."""
        try:
            partitions = partitions_of(self._consumer, self._topic, METADATA_S, clock=self._clock, pause=self._pause)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() in UNKNOWN:
                raise UnreachableError(
                    f"topic {self._topic} doesn't exist; create it with 'forecast-worker topics create', "
                    "or correct fleet.control_topic and fleet.state_topic"
                ) from exception
            raise UnreachableError(f"reading {self._topic}: {error.str()}; {REMEDY}") from exception
        self._unfinished = set(partitions)
        self._consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions])

    def poll(self, timeout_s: float) -> int:
        """Take what came within `timeout_s`; returns how many messages."""
        messages = self._consumer.consume(500, timeout_s)
        return sum(self._one(message) for message in messages)

    def read_to_end(self, deadline: Deadline) -> None:
        """Take everything up to the end that the topic had. Raises `UnreachableError` if that takes too long, or may not be."""
        while self._unfinished:
            denied = self._trouble is not None and self._trouble.code() in DENIED
            if denied or deadline.expired:
                got = "nothing came" if self._trouble is None else self._trouble.str()
                late = "" if denied else " took too long"
                raise UnreachableError(f"reading {self._topic} to its end{late}: {got}; {REMEDY}")
            self.poll(POLL_S)

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _one(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
                self._unfinished.discard(message.partition() or 0)
            else:
                self._trouble = error
                log.warning("reading a control topic", topic=self._topic, reason=error.str())
            return False
        try:
            self._take(bytes(message.key() or b""), message.value())
        except ControlError as unreadable:
            log.warning("a message of a control topic was ignored", topic=self._topic, reason=str(unreadable))
        return True


class Fleet:
    """This worker's place among the others.

    Args:
        consumer: with `enable.partition.eof`, for the control topic alone; closed here.
        producer: for both topics; not transactional.
        control_topic, state_topic: None for the latter: this worker's state is told to nobody.
        worker: its name in states and commands.
        clock: monotonic. pause: waits for so many seconds, before a broker is asked again.
        probe: called before and after this worker's finding is written; see `loading.LEAVING_PROBES`.
    """

    def __init__(  # noqa: PLR0913 - everything is injected
        self,
        *,
        consumer: Consumer,
        producer: Producer,
        control_topic: str,
        state_topic: str | None,
        worker: str,
        handover: Handover,
        heartbeat_s: float,
        clock: Clock,
        wall_clock_ms: Callable[[], int],
        pause: Callable[[float], None] = time.sleep,
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._probe = probe
        self._reader = ControlReader(consumer, control_topic, self._take, clock=clock, pause=pause)
        self._producer = producer
        self._control_topic = control_topic
        self._state_topic = state_topic
        self._worker = worker
        self._handover = handover
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._commands = Commands.none()
        self._model = ""
        self._states: SimpleQueue[WorkerState] = SimpleQueue()
        self._state: WorkerState | None = None
        self._unsent: list[Command] = []
        self._again_s = float("-inf")
        self._told_s = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    @property
    def worker(self) -> str:
        """This worker's name."""
        return self._worker

    @property
    def commands(self) -> Commands:
        """What is in force now. Never changes; a new one takes its place."""
        return self._commands

    def read(self, model: str) -> Commands:
        """Read the control topic to its end, for the worker of `model`. Before `start`. Raises `UnreachableError`."""
        self._model = model
        self._reader.start()
        self._reader.read_to_end(Deadline.after(READ_S, self._clock))
        self._obey()
        return self._commands

    def start(self) -> None:
        """Go on reading and writing, on its own thread."""
        self._thread.start()

    def tell(self, state: WorkerState) -> None:
        """Say what this worker runs. From the loader's thread; returns at once."""
        self._states.put(state)

    def close(self) -> None:
        """Say what is left to be said, withdraw this worker's state and stop. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._again_s = float("-inf")
            self._warn()  # the loop may have rolled back just before it ended
            if self._state is not None and self._state_topic is not None:
                self._produce(self._state_topic, self._state.key, None)
            waiting = self._producer.flush(FLUSH_S)
            if waiting or self._unsent:
                log.error("the fleet wasn't told everything", messages=waiting, quarantines=len(self._unsent))
        except (BufferError, KafkaException) as error:
            log.error("the fleet wasn't told everything", reason=str(error))  # noqa: TRY400 - the reason says it all
        finally:
            self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.turn()
            except Exception:  # a worker goes on serving without its fleet; the next turn tries again
                log.exception("talking to the fleet")
                self._stop.wait(AFTER_AN_ERROR_S)

    def turn(self) -> None:
        """Read what came, write what is to be said. What the thread does over and over."""
        if self._reader.poll(POLL_S):
            self._obey()
            self._handover.inbox.put(Look())
        self._producer.poll(0)  # what it reports makes room in the local queue, which may be full
        self._warn()
        self._say()
        self._producer.poll(0)

    def _take(self, key: bytes, value: bytes | None) -> None:
        self._commands = self._commands.without(key) if value is None else self._commands.after(decode_command(value))

    def _obey(self) -> None:
        quarantined: Mapping[VersionId, str] = self._commands.of(self._model).quarantined
        if quarantined != self._handover.quarantined:
            self._handover.quarantined = MappingProxyType(dict(quarantined))

    def _warn(self) -> None:
        """Quarantine for all what this worker's guard has found. What isn't delivered is sent again."""
        with suppress(Empty):
            while True:
                left = self._handover.left.get_nowait()
                self._unsent.append(self._quarantine(left))
                log.error("version quarantined for all workers", version=str(left.version), reason=left.reason)
        while self._unsent and self._clock() >= self._again_s:
            command = self._unsent[0]
            newer = self._commands.newest.get(command.key)
            if (
                newer is not None and newer.at_ms > command.at_ms
            ):  # released by somebody meanwhile, or found by another, too
                del self._unsent[0]
                continue
            self._probe("control_writing")
            self._produce(self._control_topic, command.key, encode_command(command), partial(self._lost, command))
            self._probe("control_written")
            del self._unsent[0]  # only now: the local queue may be full

    def _quarantine(self, left: Left) -> Command:
        return Command(
            model=self._model,
            kind=Kind.QUARANTINE,
            version=left.version,
            reason=left.reason,
            by=self._worker,
            at_ms=self._wall_clock_ms(),
        )

    def _lost(self, command: Command) -> None:
        """`command` wasn't delivered. Called by the client's `poll` and `flush`, so on this thread."""
        self._unsent.append(command)
        self._again_s = self._clock() + AGAIN_S

    def _say(self) -> None:
        with suppress(Empty):
            while True:
                self._state = self._states.get_nowait()
                self._told_s = float("-inf")  # it is new
        now_s = self._clock()
        if self._state is None or self._state_topic is None or now_s < self._told_s + self._heartbeat_s:
            return
        self._state = replace(self._state, at_ms=self._wall_clock_ms())
        self._produce(self._state_topic, self._state.key, encode_state(self._state))
        self._told_s = now_s

    def _produce(self, topic: str, key: bytes, value: bytes | None, lost: Callable[[], None] = lambda: None) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                log.error("a message to the fleet wasn't delivered", topic=topic, reason=error.str())
                lost()

        self._producer.produce(topic, key=key, value=value, on_delivery=delivered)
