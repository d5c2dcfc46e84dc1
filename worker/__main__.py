"""`forecast-worker`: the command line. What each command does; the grammar is in `cli.py`, the parts in `compose.py`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.cimpl import NewTopic

from schemas.engine_card import CardError
from schemas.load import SchemaError
from schemas.model_store import StoreError
from schemas.topics import Topic, TopicsError, load_topics
from worker import dead_letters_command, diff_command, models_command
from worker.cli import build_parser
from worker.collector import freeze_objects
from worker.compose import assembled, load_engines, standby_of
from worker.compose_wire import contracts
from worker.deadline import Deadline
from worker.errors import ConfigurationError, ForecastWorkerError
from worker.health import start_server
from worker.logs import configure_logs, kafka_logger
from worker.loop import Worker
from worker.memory_return import separate_arenas
from worker.preflight import Cluster
from worker.replay_command import replay
from worker.settings import Settings, load_settings
from worker.signals import stop_signals

log = structlog.get_logger("worker")

BUG_EXIT_CODE = 70
TOPIC_TIMEOUT_S = 30.0

WRONG_FILES = (SchemaError, CardError, StoreError, TopicsError)
"""What `schemas/` says of a file that is wrong. That package knows none of ours, so here is where its errors count as
configuration errors."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. What is wrong is one message on standard error, without a traceback."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = load_settings(arguments.config, arguments.overrides, os.environ)
        configure_logs(settings.log.level, settings.log.format)
        return COMMANDS[arguments.command](settings, arguments)
    except ForecastWorkerError as error:
        print(f"forecast-worker: {error}", file=sys.stderr)  # noqa: T201 - the message a person reads
        return error.exit_code
    except WRONG_FILES as error:
        print(f"forecast-worker: {error}", file=sys.stderr)  # noqa: T201 - likewise
        return ConfigurationError.exit_code
    except Exception:  # the process ends here, with everything that helps to find the bug
        log.exception("unexpected error; please report it")
        return BUG_EXIT_CODE


def run(settings: Settings, _: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT, then drain."""
    separate_arenas()
    with stop_signals() as stop:
        log.info("effective settings", settings=settings.redacted())
        with assembled(settings) as worker, _serving(settings, worker):
            worker.start()
            freeze_objects()
            work(worker, stop.is_set, settings.shutdown.grace_s)
    log.info("stopped", **_summary(worker))
    return 0


def work(worker: Worker, stopping: Callable[[], bool], grace_s: float) -> None:
    """Step until `stopping`, then drain within `grace_s`. On any error, discard what is open before it goes on up."""
    try:
        while not stopping():
            worker.step()
        log.info("draining", grace_s=grace_s)
        worker.drain(Deadline.after(grace_s, time.monotonic))
    except BaseException:
        worker.abandon()
        raise


def check(settings: Settings, _: argparse.Namespace) -> int:
    """Verify what `run` needs, without joining the group or touching a transaction."""
    say = _printer()
    say("settings: valid")
    contract = contracts(settings)
    contract.close()
    say(
        f"schemas: {settings.wire.framing} framing"
        + (f", registry {settings.registry.url}" if settings.registry.url else "")
    )
    with ExitStack() as cleanup:
        engines = load_engines(settings, contract.features)
        cleanup.callback(engines.close)
        standby_of(settings, contract, engines, cleanup)
        spec, backup = engines.serving.spec, engines.backup
        say(
            f"model: {spec.model} {spec.version}, {spec.precision}, {spec.horizon} days, quantiles {list(spec.quantiles)}"
        )
        say(f"inputs: {', '.join(f'{name}[{width or 1}]' for name, width in spec.inputs.items())}")
        if backup is not None:
            say(f"backup: {backup.spec.model} {backup.spec.version}, {backup.spec.precision}")
    cluster = Cluster(settings, kafka_logger())
    routing = cluster.routing()
    say(f"broker: {settings.kafka.common['bootstrap.servers']} answers, all topics exist")
    for topic in cluster.check_message_sizes():
        say(f"note: no permission to ask for the configuration of {topic}; its max.message.bytes wasn't checked")
    if not routing.same_partitions:
        say(f"note: {settings.input.topic} and {routing.forecasts} differ in partitions; keys decide, by murmur2")
    return 0


def show_settings(settings: Settings, _: argparse.Namespace) -> int:
    """Print the effective settings."""
    _printer()(settings.describe())
    return 0


def topics(settings: Settings, arguments: argparse.Namespace) -> int:
    """Create the topics that are missing, or list them all."""
    say = _printer()
    cluster = Cluster(settings, kafka_logger())
    there = cluster.partitions()
    declared = _declared(settings)
    for name, topic in declared.items():
        state = (
            f"exists, {there[name]} partitions"
            if name in there
            else f"missing, declared with {topic.partitions} partitions"
        )
        say(f"{name}: {state} ({topic.cleanup_policy.value}; {topic.doc})")
    missing = {name: topic for name, topic in declared.items() if name not in there}
    if arguments.action == "create" and missing:
        new = [NewTopic(name, num_partitions=t.partitions, config=t.kafka_config) for name, t in missing.items()]
        for name, future in cluster.admin.create_topics(new).items():
            try:
                future.result(TOPIC_TIMEOUT_S)
            except KafkaException as exception:
                raise ConfigurationError(f"creating topic {name}: {exception.args[0].str()}") from exception
            cluster.wait_for_topic(name)  # so that a worker that is started now finds it
            say(f"{name}: created")
    return 0


COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "run": run,
    "check": check,
    "settings": show_settings,
    "topics": topics,
    "models": models_command.run,
    "diff": diff_command.run,
    "dead-letters": dead_letters_command.run,
    "replay": replay,
}


@contextmanager
def _serving(settings: Settings, worker: Worker) -> Iterator[None]:
    if settings.server.port is None:
        yield
        return
    server = start_server(
        settings.server.host, settings.server.port, statistics=lambda: worker.statistics, clock=time.monotonic
    )
    log.info("listening", host=settings.server.host, port=server.port)
    try:
        yield
    finally:
        server.close()


def _declared(settings: Settings) -> dict[str, Topic]:
    """The topics of `topics.toml` under the names that the settings give them."""
    renamed = {
        "sku-features": settings.input.topic,
        "sku-forecasts": settings.output.topic,
        "sku-features.dead-letters": settings.output.dead_letter_topic,
        "model-control": settings.fleet.control_topic,
        "model-states": settings.fleet.state_topic,
    }
    named = ((renamed.get(name, name), topic) for name, topic in load_topics().items())
    return {name: topic for name, topic in named if name is not None}


def _summary(worker: Worker) -> dict[str, object]:
    statistics = worker.statistics
    return {
        "records": statistics.records,
        "forecasts": statistics.forecasts,
        "withdrawn": statistics.withdrawn,
        "superseded": statistics.superseded,
        "rejected": sum(statistics.rejections.values()),
        "transactions": dict(statistics.transactions),
    }


def _printer() -> Callable[[str], None]:
    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")

    return say


if __name__ == "__main__":
    sys.exit(main())
