"""Plays feature events into the input topic while reading the outcomes back, and waits until every event has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, Message, Producer

from demo.broken import BrokenEvent
from demo.evaluation import DeadLetterRecord, ForecastRecord, Position
from demo.events import PARTITIONER, Event
from demo.topics_reader import TopicReader, dead_letter_decoder, forecast_decoder, read_until_quiet

_STALL_S = 60.0
_READ_STALL_S = 10.0
_POLL_EVERY = 2000


class PlayError(RuntimeError):
    """An event couldn't be sent. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The names of the three topics."""

    features: str
    forecasts: str
    dead_letters: str


@dataclass(slots=True, kw_only=True)
class Readings:
    """What has been read of the output topics so far."""

    forecasts: list[bytes] = field(default_factory=list)
    dead_letters: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.forecasts) + len(self.dead_letters)

    def decoded(self) -> tuple[list[ForecastRecord], list[DeadLetterRecord]]:
        """All of it as values."""
        forecast, dead_letter = forecast_decoder(), dead_letter_decoder()
        return [forecast(value) for value in self.forecasts], [dead_letter(value) for value in self.dead_letters]


class Sender:
    """Sends events with the time of sending as theirs; the partitioner is the one that Java producers use."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._failure: str | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "partitioner": PARTITIONER,
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 200_000,
                "log_level": 3,
            }
        )

    def send(self, event: Event | BrokenEvent) -> None:
        """Hand one event to the producer; waits while its queue is full. Raises `PlayError` if an earlier one failed."""
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=event.value,
                    key=event.key,
                    timestamp=time.time_ns() // 1_000_000,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self.serve()

    def serve(self) -> None:
        """Take delivery reports. Raises `PlayError` if an event failed."""
        self._producer.poll(0)
        if self._failure is not None:
            raise PlayError(f"an event couldn't be sent to {self._topic}: {self._failure}")

    def flush(self) -> None:
        """Wait until all events are acknowledged. Raises `PlayError` if some aren't."""
        left = self._producer.flush(_STALL_S)
        self.serve()
        if left:
            raise PlayError(f"{left} events for {self._topic} weren't acknowledged in {_STALL_S:g} s")

    def _delivered(self, error: object, _message: Message) -> None:
        if error is not None:
            self._failure = str(error)


class Collector:
    """Reads both output topics, committed records only."""

    def __init__(self, bootstrap_servers: str, topics: Topics) -> None:
        self.readings = Readings()
        self._forecasts = TopicReader(bootstrap_servers, topics.forecasts)
        self._dead_letters = TopicReader(bootstrap_servers, topics.dead_letters)

    def collect(self, timeout_s: float) -> int:
        """What has come, waiting `timeout_s` at most for the first: how many messages."""
        before = len(self.readings)
        self._add(self._dead_letters.poll(0.0), self.readings.dead_letters)
        self._add(self._forecasts.poll(timeout_s), self.readings.forecasts)
        return len(self.readings) - before

    def collect_rest(self, quiet_s: float) -> None:
        """What else comes, until each topic was quiet for `quiet_s`: this finds duplicates that come late."""
        self._add(list(read_until_quiet(self._dead_letters, quiet_s)), self.readings.dead_letters)
        self._add(list(read_until_quiet(self._forecasts, quiet_s)), self.readings.forecasts)

    def close(self) -> None:
        """Leave both topics."""
        self._forecasts.close()
        self._dead_letters.close()

    @staticmethod
    def _add(messages: Iterable[Message], values: list[bytes]) -> None:
        values += [value for message in messages if (value := message.value()) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Told how far sending and collecting are; `check` may raise to end the waiting."""

    sent: Callable[[int], None]
    collected: Callable[[int], None]
    check: Callable[[], None]


def play(events: Iterable[Event | BrokenEvent], sender: Sender, collector: Collector, progress: Progress) -> int:
    """Send all events and collect until there are as many outcomes, or none has come for a minute: events sent."""
    sent = 0
    for event in events:
        sender.send(event)
        sent += 1
        if sent % _POLL_EVERY == 0:
            progress.sent(sent)
            collector.collect(0.0)
            progress.collected(len(collector.readings))
    sender.flush()
    progress.sent(sent)
    last_s = time.monotonic()
    while len(collector.readings) < sent and time.monotonic() - last_s < _STALL_S:
        progress.check()
        if collector.collect(0.1):
            last_s = time.monotonic()
            progress.collected(len(collector.readings))
    return sent


def input_positions(bootstrap_servers: str, topic: str, expected: int) -> list[Position]:
    """Where the events lie in the input topic. Raises `PlayError` unless there are `expected` of them."""
    reader = TopicReader(bootstrap_servers, topic)
    positions: list[Position] = []
    try:
        last_s = time.monotonic()
        while len(positions) < expected and time.monotonic() - last_s < _READ_STALL_S:
            messages = reader.poll(0.1)
            if messages:
                last_s = time.monotonic()
            positions += [(_known(message.partition()), _known(message.offset())) for message in messages]
    except KafkaException as error:
        raise PlayError(f"{topic} can't be read back: {error}") from error
    finally:
        reader.close()
    if len(positions) != expected:
        raise PlayError(f"{topic} holds {len(positions)} records, expected the {expected} that were sent")
    return positions


def _known(number: int | None) -> int:
    if number is None:
        raise PlayError("a record that was read has no position")
    return number
