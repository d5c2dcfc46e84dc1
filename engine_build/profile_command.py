"""`engine-build profile`: proposes batch sizes from what workers export or from a topic's own arrival times."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from engine_build.errors import TrafficError
from engine_build.kafka_access import KafkaAccess, access_from_bootstrap, access_from_settings, parse_topic_source
from engine_build.topic_rows import demand_from_topic
from engine_build.traffic import Sizes, propose
from engine_build.traffic_prometheus import batches_from_prometheus, demand_from_prometheus
from schemas.engine_card import load_card


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
    parser.add_argument("--headroom", type=_share, default=0.25, help="above the 99th percentile (0.25)")
    memory = parser.add_argument_group("memory", "bounds the largest batch")
    memory.add_argument("--memory-mib", type=_positive, help="device memory that a plan may take")
    row = memory.add_mutually_exclusive_group()
    row.add_argument(
        "--card", type=Path, metavar="CARD.json", help="a published version's: its plans say what a row takes"
    )
    row.add_argument("--row-bytes", type=_positive, help="what a row takes")


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
    """Print why, and in the last line the proposal alone."""
    memory = _memory(arguments)
    demand, batches = _sizes(arguments)
    proposal = propose(demand, batches, headroom=arguments.headroom, memory=memory)
    for note in proposal.notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(str(proposal), highlight=False)
    return 0


def _sizes(arguments: argparse.Namespace) -> tuple[Sizes, Sizes | None]:
    """Rows per commit window, and rows per batch where they are known."""
    if arguments.prometheus is None:
        source = parse_topic_source(arguments.topic)
        demand = demand_from_topic(source, access_of(arguments), window_s=arguments.window_s, workers=arguments.workers)
        return demand, None
    try:
        text = arguments.prometheus.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrafficError(str(arguments.prometheus), [f"can't be read: {error}; expected a /metrics text"]) from error
    return demand_from_prometheus(text), batches_from_prometheus(text)


def _memory(arguments: argparse.Namespace) -> tuple[int, int] | None:
    """Bytes there are, and bytes a row takes; None without a bound. Raises `TrafficError`, `CardError`."""
    if arguments.memory_mib is None:
        if arguments.card is None and arguments.row_bytes is None:
            return None
        raise TrafficError("memory", ["says what a row takes, not what there is; give --memory-mib"])
    if arguments.row_bytes is not None:
        return arguments.memory_mib << 20, arguments.row_bytes
    if arguments.card is None:
        raise TrafficError(
            "--memory-mib", ["needs what a row takes; give --card of a published version or --row-bytes"]
        )
    card = load_card(arguments.card)
    rows = [
        -(-plan.device_memory_bytes // plan.profiles[-1].max_rows)
        for plan in card.plans
        if plan.device_memory_bytes is not None
    ]
    if not rows:
        raise TrafficError(str(arguments.card), ["has no plan whose memory was measured on a GPU; give --row-bytes"])
    return arguments.memory_mib << 20, max(rows)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number above 0")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a share of 0 or more, as in 0.25")
    return value
