"""The redrive without a broker: what must be there before a letter is sent, and what is closed after it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from schemas.load import load_schema
from tests.helpers.clock import ManualClock
from worker import dead_letters_command as command
from worker import preflight
from worker.cli import build_parser
from worker.dead_letters import Letter, Place
from worker.encode import DeadLetterEncoder
from worker.errors import ConfigurationError, UnreachableError
from worker.framed_reader import FramedReader
from worker.framing import SingleObjectFraming
from worker.ledger import entry
from worker.preflight import Cluster
from worker.records import Reason, Record, Rejection, Span
from worker.settings_model import EngineSettings, KafkaSettings, Settings
from worker.transaction import Outgoing

SCHEMA = load_schema(None, "dead_letter")
FRAMING = SingleObjectFraming([SCHEMA])
SETTINGS = Settings(
    engine=EngineSettings(model=Path("model")), kafka=KafkaSettings(common={"bootstrap.servers": "none:1"})
)
TOPIC, DEAD = SETTINGS.input.topic, SETTINGS.output.dead_letter_topic
LEDGER = f"{DEAD}.redriven"


def letters(count: int) -> list[Record]:
    encoder = DeadLetterEncoder(SCHEMA, FRAMING.prefix_for(SCHEMA), max_value_bytes=5000, max_message_bytes=1_000_000)
    rejected = [
        Rejection(
            record=Record(topic=TOPIC, partition=0, offset=n, timestamp_ms=1, key=b"k", value=b"v"),
            reason=Reason.MALFORMED,
            detail="d",
        )
        for n in range(count)
    ]
    return [
        Record(
            topic=DEAD, partition=0, offset=n, timestamp_ms=7, key=b"k", value=encoder.encode(each, rejected_at_ms=7)
        )
        for n, each in enumerate(rejected)
    ]


@dataclass(slots=True)
class World:
    """Topics as lists; `shown_after` metadata calls the ledger is there. `ended`: what was closed, in order."""

    dead: list[Record]
    ledger: list[Record] = field(default_factory=list)
    shown_after: float = 0
    max_message_bytes: str = "1048588"
    sent: list[Outgoing] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    calls: int = 0


class FakeReader:
    def __init__(self, world: World, topic: str) -> None:
        self._world, self.topic = world, topic
        self._records = world.dead if topic == DEAD else world.ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._world.ended.append(f"consumer of {self.topic}")

    def spans(self) -> Mapping[int, Span]:
        return {0: Span(0, len(self._records))}

    def spans_between(self, from_ms: int | None, to_ms: int | None) -> Mapping[int, Span]:  # noqa: ARG002
        return self.spans()

    def read(self, spans: object) -> Generator[Record]:  # noqa: ARG002
        try:
            yield from self._records
        finally:
            self._world.ended.append(f"reading of {self.topic}")


class FakeOutbox:
    def __init__(self, world: World) -> None:
        self._world = world

    def produce(self, outgoing: Outgoing, deadline: object) -> None:  # noqa: ARG002
        self._world.sent.append(outgoing)

    def commit_outputs(self, deadline: object) -> None:
        pass

    def close(self) -> None:
        self._world.ended.append("outbox")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(dead=letters(3))
    clock = ManualClock()

    class FakeCluster(Cluster):
        def __init__(self, settings: Settings, logger: Any) -> None:
            super().__init__(settings, logger, clock=clock, pause=clock.advance)

        def partitions(self) -> Mapping[str, int]:
            made.calls += 1
            there = {TOPIC: 1, DEAD: 1, SETTINGS.output.topic: 1}
            return {**there, LEDGER: 1} if made.calls > made.shown_after else there

        def config(self, topic: str) -> Mapping[str, str]:  # noqa: ARG002
            return {"max.message.bytes": made.max_message_bytes}

        def ensure_topic(self, topic: str, config: object) -> bool:  # noqa: ARG002
            return False  # as after TOPIC_ALREADY_EXISTS

    @contextmanager
    def letters_topic(settings: Settings) -> Iterator[tuple[FakeReader, FramedReader, SingleObjectFraming]]:  # noqa: ARG001
        with FakeReader(made, DEAD) as reader:
            yield reader, FramedReader(SCHEMA, FRAMING), FRAMING

    monkeypatch.setattr(preflight, "AdminClient", lambda *_, **__: None)
    monkeypatch.setattr(command, "Cluster", FakeCluster)
    monkeypatch.setattr(command, "_letters_topic", letters_topic)
    monkeypatch.setattr(command, "_transaction", lambda _: FakeOutbox(made))
    monkeypatch.setattr(command, "reader_of", lambda _, topic: FakeReader(made, topic))
    return made


def redrive(*more: str) -> None:
    command.redrive(
        SETTINGS, build_parser().parse_args(["dead-letters", "redrive", "--all", "--config", "none", *more])
    )


def test_a_ledger_that_is_not_shown_yet_is_waited_for(world: World) -> None:
    place = Letter(
        place=Place(topic=DEAD, partition=0, offset=0),
        source=Place(topic=TOPIC, partition=0, offset=0),
        timestamp_ms=1,
        key=b"k",
        value=b"v",
        value_bytes=1,
        reason="malformed",
        detail="d",
        rejected_at_ms=7,
    )
    key, value = entry(place, redriven_at_ms=8)
    world.ledger.append(Record(topic=LEDGER, partition=0, offset=0, timestamp_ms=8, key=key, value=value))
    world.shown_after = 9
    redrive()
    assert [len(each.values) for each in world.sent] == [2, 2]


def test_without_a_ledger_nothing_is_sent(world: World) -> None:
    world.shown_after = float("inf")
    with pytest.raises(UnreachableError, match=f"topic {LEDGER}: not shown for 30 s"):
        redrive()
    assert world.sent == []


def test_for_a_dry_run_no_ledger_is_an_empty_one(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.shown_after = float("inf")
    redrive("--dry-run")
    assert "3 letters would be redriven" in capsys.readouterr().out


def test_a_limit_ends_the_reading_before_the_consumer(world: World) -> None:
    redrive("--limit", "1")
    assert [each for each in world.ended if each.split()[-1] == DEAD] == [f"reading of {DEAD}", f"consumer of {DEAD}"]


def test_an_input_topic_that_takes_less_than_the_producer_sends_is_told(world: World) -> None:
    world.max_message_bytes = "1000"
    with pytest.raises(ConfigurationError, match=f"{TOPIC} takes 1000 bytes at most, the producer sends up to"):
        redrive()
    assert world.sent == []
