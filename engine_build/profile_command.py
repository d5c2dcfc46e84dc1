"""`engine-build profile`: proposes batch sizes from what workers export or from a topic's own arrival times."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from engine_build.errors import TrafficError
from engine_build.kafka_access import KafkaAccess, access_from_bootstrap, access_from_settings, parse_topic_source
from engine_build.topic_rows import demand_from_topic
from engine_build.traffic import propose
from engine_build.traffic_prometheus import sizes_from_prometheus


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; it sets `run`."""
    text = "propose a profile and CUDA graph sizes from traffic"
    parser = commands.add_parser(
        "profile", help=text, description=f"{text.capitalize()}; prints a value for --profile."
    )
    parser.set_defaults(run=run)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prometheus", type=Path, metavar="FILE", help="the text of workers' /metrics")
    source.add_argument("--topic", metavar="topic://NAME?days=7", help="demand per window from records' times")
    add_access_options(parser)
    parser.add_argument("--window-s", type=float, default=0.5, help="a worker's delivery.commit_interval_s (0.5)")
    parser.add_argument("--workers", type=int, default=1, help="workers that share the topic (1)")
    parser.add_argument("--headroom", type=float, default=0.25, help="above the 99th percentile (0.25)")


def add_access_options(parser: argparse.ArgumentParser) -> None:
    """How to reach the broker of a `topic://` source."""
    access = parser.add_mutually_exclusive_group()
    access.add_argument("--bootstrap", metavar="HOST:PORT", help="broker of a topic:// source")
    access.add_argument("--config", type=Path, metavar="worker.toml", help="a worker's settings: broker, registry, TLS")


def access_of(arguments: argparse.Namespace) -> KafkaAccess:
    """Access to the broker. Raises `TrafficError` if the options don't name one."""
    if arguments.config is not None:
        return access_from_settings(arguments.config)
    if arguments.bootstrap is None:
        raise TrafficError("topic source", ["names no broker; give --config worker.toml or --bootstrap HOST:PORT"])
    return access_from_bootstrap(arguments.bootstrap)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the proposal, and why, on standard error's side of things: the value stands alone in the last line."""
    if arguments.prometheus is not None:
        try:
            text = arguments.prometheus.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TrafficError(
                str(arguments.prometheus), [f"can't be read: {error}; expected a /metrics text"]
            ) from error
        sizes = sizes_from_prometheus(text)
    else:
        source = parse_topic_source(arguments.topic)
        sizes = demand_from_topic(source, access_of(arguments), window_s=arguments.window_s, workers=arguments.workers)
    proposal = propose(sizes, headroom=arguments.headroom)
    for note in proposal.notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(str(proposal), highlight=False)
    return 0
