"""confluent_kafka's clients as scripts: what each call does next is written down by the test, and every call is noted."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.helpers.clock import ManualClock

TOPIC = "in"
Step = BaseException | Callable[[], Any] | None
Rebalance = Callable[[Any, list[TopicPartition]], None]


def kafka_error(
    code: int = KafkaError._TIMED_OUT, *, fatal: bool = False, retriable: bool = False, abortable: bool = False
) -> KafkaError:
    return KafkaError(code, f"reason {code}", fatal=fatal, retriable=retriable, txn_requires_abort=abortable)


def failing(error: KafkaError) -> KafkaException:
    return KafkaException(error)


class Script:
    """`on(call, *steps)`: what the next calls of that name do: raise an error, run a function and return its result, or
    nothing out of the ordinary (None). Calls without a step left do nothing out of the ordinary."""

    def __init__(self) -> None:
        self._steps: dict[str, deque[Step]] = defaultdict(deque)
        self.calls: list[str] = []

    def on(self, call: str, *steps: Step) -> None:
        self._steps[call].extend(steps)

    @property
    def unused(self) -> list[str]:
        return [call for call, steps in self._steps.items() if steps]

    def _run(self, call: str) -> Any:
        self.calls.append(call)
        step = self._steps[call].popleft() if self._steps[call] else None
        if isinstance(step, BaseException):
            raise step
        return None if step is None else step()


class FakeProducer(Script):
    """Every `poll` takes as long as it may: the clock moves on by it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.sent: list[dict[str, Any]] = []
        self.timeouts_s: list[float] = []
        self.offsets: list[TopicPartition] = []
        self.metadata: object = None

    @property
    def as_producer(self) -> Producer:
        return cast(Producer, self)

    def init_transactions(self, timeout: float) -> None:
        self._timed("init_transactions", timeout)

    def begin_transaction(self) -> None:
        self._run("begin_transaction")

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: object, timeout: float) -> None:
        self._timed("send_offsets_to_transaction", timeout)
        self.offsets, self.metadata = offsets, metadata

    def commit_transaction(self, timeout: float) -> None:
        self._timed("commit_transaction", timeout)

    def abort_transaction(self, timeout: float) -> None:
        self._timed("abort_transaction", timeout)

    def produce(  # the arguments as confluent_kafka has them
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, **rest: Any
    ) -> None:
        self._run("produce")
        self.sent.append({"topic": topic, "value": value, "key": key, "partition": partition, **rest})

    def poll(self, timeout: float) -> int:
        self._clock.advance(timeout)
        self._run("poll")
        return 0

    def flush(self, timeout: float) -> int:
        self.timeouts_s.append(timeout)
        waiting = self._run("flush")
        return int(waiting or 0)

    def purge(self) -> None:
        self._run("purge")

    def _timed(self, call: str, timeout: float) -> None:
        assert timeout >= 0, "librdkafka takes a negative timeout as endless"
        self.timeouts_s.append(timeout)
        self._run(call)


class FakeMessage:
    """`confluent_kafka.Message`, as far as the worker looks at it."""

    def __init__(
        self,
        partition: int = 0,
        offset: int = 0,
        *,
        value: bytes | None = b"value",
        error: KafkaError | None = None,
        headers: object = None,
        timestamp_ms: int = 1000,
    ) -> None:
        self._partition = partition
        self._offset = offset
        self._value = value
        self._error = error
        self._headers = headers
        self._timestamp_ms = timestamp_ms

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return (1, self._timestamp_ms)

    def key(self) -> bytes | None:
        return f"key {self._offset}".encode()

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> object:
        return self._headers


class FakeConsumer(Script):
    """A step of `consume` or `poll` is a function that may rebalance (`assign`, `revoke`, `lose`) and returns messages."""

    def __init__(self) -> None:
        super().__init__()
        self._callbacks: dict[str, Rebalance] = {}
        self.committed_offsets: dict[int, int] = {}
        self.commits: list[list[tuple[int, int]]] = []
        self.seeks: list[tuple[int, int]] = []
        self.asked: list[tuple[int, float]] = []
        self.paused: set[int] = set()
        self.topics: list[str] = []
        self.high = -1001

    @property
    def as_consumer(self) -> Consumer:
        return cast(Consumer, self)

    def subscribe(self, topics: list[str], on_assign: Rebalance, on_revoke: Rebalance, on_lost: Rebalance) -> None:
        self.topics = topics
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lose": on_lost}

    def assign(self, *partitions: int) -> None:
        self.paused -= set(partitions)
        self._rebalance("assign", partitions)

    def revoke(self, *partitions: int) -> None:
        self._rebalance("revoke", partitions)

    def lose(self, *partitions: int) -> None:
        self._rebalance("lose", partitions)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        self.asked.append((num_messages, timeout))
        return cast("list[Message]", self._run("consume") or [])

    def poll(self, timeout: float) -> Message | None:
        self.asked.append((1, timeout))
        return cast("Message | None", self._run("poll"))

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        changed = self._run("committed")
        if changed is not None:
            return cast("list[TopicPartition]", changed)
        return [TopicPartition(p.topic, p.partition, self.committed_offsets.get(p.partition, -1001)) for p in places]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        places = self._run("commit")
        self.commits.append([(place.partition, place.offset) for place in offsets])
        return offsets if places is None else cast("list[TopicPartition]", places)

    def seek(self, place: TopicPartition) -> None:
        self._run("seek")
        self.seeks.append((place.partition, place.offset))

    def pause(self, places: Sequence[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: Sequence[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        assert place.topic == TOPIC
        return (0, self.high)

    def consumer_group_metadata(self) -> object:
        return "metadata"

    def close(self) -> None:
        self._run("close")

    def _rebalance(self, kind: str, partitions: Sequence[int]) -> None:
        self._callbacks[kind](self, [TopicPartition(TOPIC, partition) for partition in partitions])


class FailedPlace:
    """A `TopicPartition` as a request gives it back when it failed for this partition."""

    def __init__(self, partition: int, error: KafkaError) -> None:
        self.topic = TOPIC
        self.partition = partition
        self.offset = -1001
        self.error = error
