"""`forecast-worker dead-letters list|show|redrive`: look at what was rejected, and send it again after a fix."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

from confluent_kafka import Producer

from worker.clients import made, redrive_config
from worker.compose import INIT_TIMEOUT_S
from worker.dead_letters import Group, Letter, Place, Selection, letter_of, place_from_text
from worker.dead_letters_text import group_lines, groups_json, letter_json, letter_lines, redriven_json, redriven_lines
from worker.deadline import Deadline
from worker.errors import ConfigurationError
from worker.framed_reader import FramedReader
from worker.framing import Framing, Refusal
from worker.ledger import LEDGER_CONFIG, LEDGER_SUFFIX, Ledger
from worker.logs import kafka_logger
from worker.pipeline import Probe
from worker.preflight import Cluster
from worker.records import Reason, Span
from worker.redrive import Redrive, Redriven, Target
from worker.settings_model import Settings
from worker.tool_parts import reader_of, reading
from worker.topic_reader import TopicReader
from worker.transaction import Transaction
from worker.wall_clock import wall_clock_ms


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the action. Returns the exit code."""
    actions = {"list": _list, "show": _show, "redrive": redrive}
    actions[arguments.action](settings, arguments)
    return 0


def _list(settings: Settings, arguments: argparse.Namespace) -> None:
    selection = _selection(settings, arguments)
    groups: dict[str, Group] = {}
    unreadable = Group(reason="")
    with _letters_topic(settings) as (reader, decoder, _):
        ledger = _ledger_if_any(settings, Cluster(settings, kafka_logger()))
        for letter in _letters(reader, decoder, selection, unreadable):
            group = groups.setdefault(letter.reason, Group(reason=letter.reason))
            group.add(letter, is_redriven=letter in ledger, max_samples=arguments.samples)
    found = sorted(groups.values(), key=lambda group: (-group.letters, group.reason))
    topic = settings.output.dead_letter_topic
    _say(
        groups_json(topic, found, unreadable.letters)
        if arguments.json
        else group_lines(topic, found, unreadable.letters)
    )


def _show(settings: Settings, arguments: argparse.Namespace) -> None:
    place = _place(arguments.letter, settings.output.dead_letter_topic)
    with _letters_topic(settings) as (reader, decoder, framing):
        letter = _one_letter(reader, decoder, place)
        values = _value_reader(framing, letter)
        _say(letter_json(letter, values) if arguments.json else letter_lines(letter, values))
    if arguments.save is not None:
        try:
            arguments.save.write_bytes(letter.value or b"")
        except OSError as error:
            raise ConfigurationError(f"--save {arguments.save}: can't be written: {error.strerror}") from error


def redrive(settings: Settings, arguments: argparse.Namespace, *, probe: Probe = lambda _: None) -> None:
    """The action of that name. `probe`: see `Redrive`."""
    selection = _selection(settings, arguments)
    if selection.is_all and not arguments.all:
        raise ConfigurationError(
            "dead-letters redrive: got no condition; name the letters by --reason, --from, --to, --partition or --letter, "
            "or say --all"
        )
    unreadable = Group(reason="")
    cluster = Cluster(settings, kafka_logger())
    target = _target(settings, cluster, None if arguments.force else arguments.max_attempts)
    with (
        _letters_topic(settings) as (reader, decoder, _),
        # Closed by us: after --limit letters it isn't at its end, and would outlive the consumer.
        closing(_letters(reader, decoder, selection, unreadable)) as letters,
    ):
        if arguments.dry_run:
            ledger = _ledger_if_any(settings, cluster)
            outcome = _redrive(settings, target, _Nowhere(), ledger).run(letters, limit=arguments.limit)
        else:
            cluster.ensure_topic(target.ledger_topic, LEDGER_CONFIG)
            cluster.wait_for_topic(target.ledger_topic)
            with closing(_transaction(settings)) as outbox:
                ledger = _ledger(settings)  # not before: now nobody else can write to it
                outcome = _redrive(settings, target, outbox, ledger, probe).run(letters, limit=arguments.limit)
    _say_redriven(outcome, target, unreadable.letters, arguments)


class _Nowhere:
    """An outbox for a dry run."""

    def produce(self, outgoing: object, deadline: object) -> None:
        """Nothing."""

    def commit_outputs(self, deadline: object) -> None:
        """Nothing."""

    def abort(self, deadline: object) -> None:
        """Nothing."""


def _redrive(
    settings: Settings, target: Target, outbox: Transaction | _Nowhere, ledger: Ledger, probe: Probe = lambda _: None
) -> Redrive:
    return Redrive(
        outbox=outbox,
        ledger=ledger,
        target=target,
        timeout_s=settings.delivery.transaction_timeout_s,
        clock=time.monotonic,
        wall_clock_ms=wall_clock_ms,
        probe=probe,
    )


def _transaction(settings: Settings) -> Transaction:
    """Fences every other redrive of this topic, and settles what one that was killed left open."""
    with made("producer"):
        config = redrive_config(settings, f"{settings.output.dead_letter_topic}.redrive")
        producer = Producer(config, logger=kafka_logger())
    return Transaction(producer, lambda: None, deadline=Deadline.after(INIT_TIMEOUT_S, time.monotonic))


def _target(settings: Settings, cluster: Cluster, max_attempts: int | None) -> Target:
    topic = settings.input.topic
    cluster.routing()  # all topics are there
    cluster.check_message_sizes([topic])
    config = cluster.config(topic) or {}
    retention_ms = int(config.get("retention.ms", "-1")) if "delete" in config.get("cleanup.policy", "delete") else -1
    return Target(
        topic=topic,
        partitions=cluster.partitions()[topic],
        retention_ms=retention_ms if retention_ms >= 0 else None,
        ledger_topic=_ledger_topic(settings),
        max_attempts=max_attempts,
    )


def _ledger(settings: Settings) -> Ledger:
    """Who was redriven, by the ledger topic as it is now. Raises `UnreachableError` if it isn't there."""
    with reader_of(settings, _ledger_topic(settings)) as reader:
        return Ledger.of(reader.read(reader.spans()))


def _ledger_if_any(settings: Settings, cluster: Cluster) -> Ledger:
    """The same for who only looks: without the topic nobody was redriven. Not for a redrive, which would do all again."""
    return _ledger(settings) if _ledger_topic(settings) in cluster.partitions() else Ledger()


def _ledger_topic(settings: Settings) -> str:
    return f"{settings.output.dead_letter_topic}{LEDGER_SUFFIX}"


@contextmanager
def _letters_topic(settings: Settings) -> Iterator[tuple[TopicReader, FramedReader, Framing]]:
    with reading(settings) as contract, reader_of(settings, settings.output.dead_letter_topic) as reader:
        yield reader, FramedReader(contract.dead_letter, contract.framing), contract.framing


def _letters(reader: TopicReader, decoder: FramedReader, selection: Selection, unreadable: Group) -> Generator[Letter]:
    """The letters that are meant, up to the topic's end as of now. `unreadable.letters` counts what is no letter."""
    spans = reader.spans_between(selection.from_ms, None)  # a letter's own timestamp is when it was written
    if selection.places:
        wanted = {place.partition for place in selection.places}
        spans = {partition: span for partition, span in spans.items() if partition in wanted}
    with closing(reader.read(spans)) as records:
        for record in records:
            letter = letter_of(record, decoder)
            if isinstance(letter, Refusal):
                unreadable.letters += 1
            elif selection.has(letter):
                yield letter


def _one_letter(reader: TopicReader, decoder: FramedReader, place: Place) -> Letter:
    spans = reader.spans()
    span = spans.get(place.partition)
    if place.topic != reader.topic or span is None or not span.first_offset <= place.offset < span.next_offset:
        there = ", ".join(f"{p}/{s.first_offset} up to {p}/{s.next_offset}" for p, s in sorted(spans.items()))
        raise ConfigurationError(f"there is no letter {place}; {reader.topic} has {there} (without the last ones)")
    for record in reader.read({place.partition: Span(place.offset, span.next_offset)}):
        if record.offset != place.offset:
            break
        letter = letter_of(record, decoder)
        if isinstance(letter, Refusal):
            raise ConfigurationError(f"{place} is no dead letter: {letter.detail}")
        return letter
    raise ConfigurationError(f"there is no letter {place}: a transaction's marker or an aborted record has this offset")


def _value_reader(framing: Framing, letter: Letter) -> dict[str, object] | Refusal:
    """The rejected value by its writer's schema; why not, if not."""
    value = letter.value
    if value is None:
        return Refusal(reason=Reason.NO_KEY_NO_VALUE, detail="the value is null")
    schema = framing.schema_of(value[: framing.prefix_bytes])
    if isinstance(schema, Refusal):
        return schema
    return FramedReader(schema, framing).read(value)


def _selection(settings: Settings, arguments: argparse.Namespace) -> Selection:
    topic = settings.output.dead_letter_topic
    from_ms, to_ms = arguments.from_ms, arguments.to_ms
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ConfigurationError(
            "--from: got a time that isn't before --to; the span is from --from up to, without, --to"
        )
    return Selection(
        reasons=frozenset(arguments.reason),
        partitions=frozenset(arguments.partition),
        places=frozenset(_place(text, topic) for text in arguments.letter),
        from_ms=from_ms,
        to_ms=to_ms,
    )


def _place(text: str, topic: str) -> Place:
    try:
        return place_from_text(text, topic)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _say_redriven(outcome: Redriven, target: Target, unreadable: int, arguments: argparse.Namespace) -> None:
    if arguments.json:
        _say(redriven_json(outcome, target.topic, unreadable, is_dry=arguments.dry_run))
    else:
        _say(redriven_lines(outcome, target.topic, unreadable, is_dry=arguments.dry_run))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
