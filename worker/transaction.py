"""Outputs and the positions they stand for, committed together or not at all. The only file that produces or commits.

Rules of this file:

- Whatever is produced belongs to the open transaction; the first output opens it, so an idle worker holds none open.
- `commit` spends `Positions`. Nothing else in the code base commits or stores an offset.
- An error is asked what it is, by itself (`classify`): retriable => the same call again under the same deadline;
  abortable => abort, and the caller rewinds; anything else is fatal => the process leaves. A commit whose outcome nobody
  knows is fatal too: the restart's `init_transactions` settles it.

States, and the calls that are legal in each (`LEGAL`); any other call is a bug and raises without changing anything:

    READY -produce-> OPEN -commit-> READY        OPEN -(abortable error)-> BROKEN -abort-> READY
                     OPEN -abort--> READY        any  -(fatal error)-----> FATAL
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from worker.deadline import Deadline
from worker.delivery_errors import classify, flagged
from worker.errors import AbortableError, DeliveryError, FatalDeliveryError
from worker.records import Header, Positions

Watch = Callable[[str, Deadline], AbstractContextManager[None]]


def unwatched(_: str, __: Deadline) -> AbstractContextManager[None]:
    """Trust the time-outs."""
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Messages for one topic, as columns of equal length.

    A None in `partitions` lets the producer choose by the key (murmur2, as Java does). A timestamp of -1 means now.
    """

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    partitions: Sequence[int] | None
    timestamps_ms: Sequence[int]
    headers: Sequence[list[Header]] | None = None


class Delivery(Protocol):
    """Where outputs go. Exactly-once: `Transaction`. At-least-once: `Flushed`. Used from the loop's thread only."""

    @property
    def is_open(self) -> bool:
        """True while outputs wait to be committed."""
        ...

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """Send, and open a transaction if none is. Blocks only while the local queue is full."""
        ...

    def commit(self, positions: Positions, deadline: Deadline) -> None:
        """Commit everything produced since the last commit together with `positions`. Blocks until it is settled.

        Raises `AbortableError` (then call `abort`), or `FatalDeliveryError`.
        """
        ...

    def abort(self, deadline: Deadline) -> None:
        """Discard everything produced since the last commit. Without an open transaction it does nothing."""
        ...

    def close(self) -> None:
        """Leave. What isn't committed is discarded."""
        ...


class State(Enum):
    """Where a delivery stands."""

    READY = auto()
    OPEN = auto()
    BROKEN = auto()
    FATAL = auto()


LEGAL: Mapping[str, frozenset[State]] = MappingProxyType(
    {
        "produce": frozenset({State.READY, State.OPEN}),
        "commit": frozenset({State.READY, State.OPEN}),
        "abort": frozenset({State.READY, State.OPEN, State.BROKEN}),
    }
)

RETRY_PAUSE_S = 0.05
FULL_QUEUE_PAUSE_S = 0.01


class _StateMachine:
    """What both deliveries share: legal calls, and the translation of librdkafka's errors."""

    hidden: ClassVar[frozenset[int]] = frozenset()
    """What `produce` raises after an earlier call failed in the background, without saying how: aborting will tell."""

    def __init__(self, producer: Producer, watch: Watch) -> None:
        self._producer = producer
        self._watch = watch
        self._state = State.READY

    @property
    def state(self) -> State:
        """Where this delivery stands."""
        return self._state

    @property
    def is_open(self) -> bool:
        """True while outputs wait to be committed or aborted."""
        return self._state in {State.OPEN, State.BROKEN}

    def close(self) -> None:
        """See `Delivery.close`. A transaction that couldn't be aborted is left to its time-out."""
        with suppress(KafkaException):  # a fenced producer refuses everything, and that was reported already
            self._producer.purge()
            self._producer.flush(0)

    def _require(self, call: str) -> None:
        if self._state not in LEGAL[call]:
            legal = ", ".join(sorted(state.name for state in LEGAL[call]))
            raise FatalDeliveryError(f"{call} in state {self._state.name}; legal in {legal}")

    def _fail(self, error: DeliveryError) -> DeliveryError:
        self._state = State.BROKEN if isinstance(error, AbortableError) else State.FATAL
        return error

    def _call(self, doing: str, call: Callable[[float], Any], deadline: Deadline, late: type[DeliveryError]) -> None:
        """`call(timeout_s)`, again while its error is retriable and time is left; `late` when it isn't settled by then."""
        while True:
            try:
                with self._watch(doing, deadline):
                    call(deadline.remaining_s)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                failure = classify(error, doing)
                if failure is None and deadline.expired:
                    failure = late(f"{doing}: not settled in time: {error.str()} ({error.name()})")
                if failure is not None:
                    raise self._fail(failure) from exception
                self._producer.poll(min(RETRY_PAUSE_S, deadline.remaining_s))
            else:
                return

    def _send(self, outgoing: Outgoing, deadline: Deadline) -> None:
        produce, topic = self._producer.produce, outgoing.topic
        partitions = outgoing.partitions if outgoing.partitions is not None else [-1] * len(outgoing.values)
        headers = outgoing.headers
        rows = zip(outgoing.values, outgoing.keys, partitions, outgoing.timestamps_ms, strict=True)
        try:
            for row, (value, key, partition, timestamp_ms) in enumerate(rows):
                timestamp_ms = max(timestamp_ms, 0)  # noqa: PLW2901 - 0 means now
                while True:
                    try:
                        if headers is None:
                            produce(topic, value, key, partition, timestamp=timestamp_ms)
                        else:
                            produce(topic, value, key, partition, timestamp=timestamp_ms, headers=headers[row])
                        break
                    except BufferError:
                        self._make_room(topic, deadline)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            failure = classify(error, f"producing to {topic}")
            if failure is None or (error.code() in self.hidden and not error.fatal()):
                failure = AbortableError(f"producing to {topic}: {error.str()} ({error.name()})")
            raise self._fail(failure) from exception

    def _make_room(self, topic: str, deadline: Deadline) -> None:
        """Let the full local queue drain for a moment. Raises `AbortableError` once `deadline` is over."""
        if deadline.expired:
            full = AbortableError(f"producing to {topic}: the local queue stayed full; is the broker down?")
            raise self._fail(full) from None
        self._producer.poll(FULL_QUEUE_PAUSE_S)


class Transaction(_StateMachine):
    """Exactly once: a Kafka transaction holds outputs, dead letters and offsets.

    Args:
        producer: with a transactional.id. Its `init_transactions` is called here, blocking up to `deadline`; that fences
            whoever used the same transactional.id and settles what it left behind.
        group_metadata: the consumer's `consumer_group_metadata`, asked anew at every commit, as the generation changes.
        watch: surrounds each blocking call with its deadline; for a watchdog, as librdkafka's time-outs can fail.
        note: asked at every commit for the text that is kept with a partition's offset.
    """

    hidden = frozenset({KafkaError._STATE, KafkaError._FATAL})  # noqa: SLF001 - see above

    def __init__(
        self,
        producer: Producer,
        group_metadata: Callable[[], object],
        *,
        deadline: Deadline,
        watch: Watch = unwatched,
        note: Callable[[int], str] = lambda _: "",
    ) -> None:
        super().__init__(producer, watch)
        self._group_metadata = group_metadata
        self._note = note
        self._call("init_transactions", producer.init_transactions, deadline, FatalDeliveryError)

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """See `Delivery.produce`."""
        self._require("produce")
        self._begin(deadline)
        self._send(outgoing, deadline)

    def commit(self, positions: Positions, deadline: Deadline) -> None:
        """See `Delivery.commit`. Positions without outputs (all superseded, say) open a transaction of their own."""
        self._require("commit")
        self._begin(deadline)
        offsets = _offsets(positions, self._note)
        metadata = self._group_metadata()
        self._call(
            "send_offsets_to_transaction",
            lambda timeout_s: self._producer.send_offsets_to_transaction(offsets, metadata, timeout_s),
            deadline,
            AbortableError,
        )
        self._call("commit_transaction", self._producer.commit_transaction, deadline, FatalDeliveryError)
        self._state = State.READY

    def commit_outputs(self, deadline: Deadline) -> None:
        """Commit everything produced since the last commit, which stands for no positions. Raises as `commit` does."""
        self._require("commit")
        if self._state is State.OPEN:
            self._call("commit_transaction", self._producer.commit_transaction, deadline, FatalDeliveryError)
            self._state = State.READY

    def _begin(self, deadline: Deadline) -> None:
        if self._state is State.READY:
            self._call("begin_transaction", lambda _: self._producer.begin_transaction(), deadline, FatalDeliveryError)
            self._state = State.OPEN

    def abort(self, deadline: Deadline) -> None:
        """See `Delivery.abort`."""
        self._require("abort")
        if self.is_open:
            self._call("abort_transaction", self._producer.abort_transaction, deadline, FatalDeliveryError)
            self._state = State.READY


class Flushed(_StateMachine):
    """At least once: offsets are committed after every output was acknowledged. A crash in between repeats outputs.

    Args:
        producer: idempotent, with `delivery.report.only.error` and `failed` (below) as its `on_delivery`.
        consumer: commits the offsets.
        failures: filled by the producer's delivery callback; only failures are reported.
    """

    def __init__(
        self, producer: Producer, consumer: Consumer, failures: list[KafkaError], watch: Watch = unwatched
    ) -> None:
        super().__init__(producer, watch)
        self._consumer = consumer
        self._failures = failures

    def produce(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """See `Delivery.produce`."""
        self._require("produce")
        self._state = State.OPEN
        self._send(outgoing, deadline)
        self._producer.poll(0)

    def commit(self, positions: Positions, deadline: Deadline) -> None:
        """See `Delivery.commit`."""
        self._require("commit")
        waiting = self._producer.flush(deadline.remaining_s)
        if waiting or self._failures:
            reason = self._failures[0].str() if self._failures else f"{waiting} messages not acknowledged in time"
            raise self._fail(AbortableError(f"delivering forecasts: {reason}"))
        offsets = _offsets(positions)
        self._call("committing offsets", lambda _: self._commit_offsets(offsets), deadline, AbortableError)
        self._state = State.READY

    def _commit_offsets(self, offsets: list[TopicPartition]) -> None:
        try:
            places = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:
            raise KafkaException(flagged(exception.args[0])) from exception
        for place in places or ():
            if place.error is not None:
                raise KafkaException(flagged(place.error))

    def abort(self, deadline: Deadline) -> None:
        """See `Delivery.abort`. What was acknowledged already stays on the topic and will be there twice."""
        self._require("abort")
        self._producer.purge()
        self._producer.flush(deadline.remaining_s)
        self._failures.clear()
        self._state = State.READY


def _offsets(positions: Positions, note: Callable[[int], str] = lambda _: "") -> list[TopicPartition]:
    return [TopicPartition(positions.topic, p, span.next_offset, note(p)) for p, span in positions.spans.items()]
