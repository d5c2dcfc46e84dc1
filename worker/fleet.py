"""What workers of one model tell each other, over two compacted topics: commands to all, and what each worker runs.

Threads: one of its own, the only one that touches the clients. It reads the control topic from its beginning with a consumer
without a group (`assign`), so every worker sees every command; it writes what this worker's guard found and what it runs.
It meets the others in `handover.py`: it writes `quarantined`, reads `left`, and puts `Look` for the loader.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import MappingProxyType

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

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
from worker.deadline import Deadline
from worker.errors import UnreachableError
from worker.handover import Handover, Look
from worker.version_choice import VersionId

log = structlog.get_logger(__name__)

POLL_S = 0.05
METADATA_S = 10.0
READ_S = 30.0
"""How long reading the control topic to its end may take at the start. It is compacted, so it is short."""
FLUSH_S = 5.0


class ControlReader:
    """Follows a compacted topic from its beginning. Gives each message to `take(key, value)`; None: withdrawn."""

    def __init__(self, consumer: Consumer, topic: str, take: Callable[[bytes, bytes | None], None]) -> None:
        self._consumer = consumer
        self._topic = topic
        self._take = take
        self._unfinished: set[int] = set()

    def start(self) -> None:
        """Begin to read. Raises `UnreachableError` if the topic isn't there."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=METADATA_S).topics[self._topic]
        except KafkaException as exception:
            raise UnreachableError(f"reading {self._topic}: {exception.args[0].str()}") from exception
        if found.error is not None or not found.partitions:
            raise UnreachableError(
                f"topic {self._topic} doesn't exist; create it with 'forecast-worker topics create', "
                "or correct fleet.control_topic and fleet.state_topic"
            )
        self._unfinished = set(found.partitions)
        self._consumer.assign(
            [TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in found.partitions]
        )

    def poll(self, timeout_s: float) -> int:
        """Take what came within `timeout_s`; returns how many messages."""
        messages = self._consumer.consume(500, timeout_s)
        return sum(self._one(message) for message in messages)

    def read_to_end(self, deadline: Deadline) -> None:
        """Take everything up to the end that the topic had. Raises `UnreachableError` if that takes too long."""
        while self._unfinished:
            if deadline.remaining_s <= 0:
                raise UnreachableError(f"reading {self._topic} to its end took too long; are the brokers reachable?")
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
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._probe = probe
        self._reader = ControlReader(consumer, control_topic, self._take)
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
        """Withdraw this worker's state and stop. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._state is not None and self._state_topic is not None:
            self._produce(self._state_topic, self._state.key, None)
        self._producer.flush(FLUSH_S)
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.turn()
            except Exception:  # a worker goes on serving without its fleet; the next turn tries again
                log.exception("talking to the fleet")
                self._stop.wait(1.0)

    def turn(self) -> None:
        """Read what came, write what is to be said. What the thread does over and over."""
        if self._reader.poll(POLL_S):
            self._obey()
            self._handover.inbox.put(Look())
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
        """Quarantine for all what this worker's guard has found."""
        while True:
            try:
                left = self._handover.left.get_nowait()
            except Empty:
                return
            command = Command(
                model=self._model,
                kind=Kind.QUARANTINE,
                version=left.version,
                reason=left.reason,
                by=self._worker,
                at_ms=self._wall_clock_ms(),
            )
            self._probe("control_writing")
            self._produce(self._control_topic, command.key, encode_command(command))
            self._probe("control_written")
            log.error("version quarantined for all workers", version=str(left.version), reason=left.reason)

    def _say(self) -> None:
        changed = False
        while True:
            try:
                self._state = self._states.get_nowait()
            except Empty:
                break
            changed = True
        now_s = self._clock()
        if (
            self._state is None
            or self._state_topic is None
            or not (changed or now_s >= self._told_s + self._heartbeat_s)
        ):
            return
        self._told_s = now_s
        self._state = replace(self._state, at_ms=self._wall_clock_ms())
        self._produce(self._state_topic, self._state.key, encode_state(self._state))

    def _produce(self, topic: str, key: bytes, value: bytes | None) -> None:
        self._producer.produce(topic, key=key, value=value, on_delivery=_delivered)


def _delivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        log.error("a message to the fleet wasn't delivered", topic=message.topic(), reason=error.str())
