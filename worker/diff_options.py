"""The grammar of `forecast-worker diff`.                                                                       (pure)"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.options import add_settings_options

_EPILOG = """\
examples:
  forecast-worker diff sku-forecasts sku-forecasts.replay.new-model --config worker.toml
  forecast-worker diff --model 2026-11-20 --config worker.toml --actuals sales.parquet --html diff.html
  forecast-worker diff --model 2026-11-20 --config worker.toml --actuals topic://sku-features --json

Compares forecasts of the same key and as_of. docs/diff.md says what each figure means."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = commands.add_parser(
        "diff",
        help="compare the forecasts of two topics, or of a topic and another model version",
        description="Compare forecasts: what changed, by how much, and which side was closer to what was sold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_options(command)
    command.add_argument(
        "topics",
        nargs="*",
        metavar="TOPIC",
        help="two topics of forecasts; with --model one, by default the live topic",
    )
    command.add_argument(
        "--model",
        metavar="VERSION",
        help="compare with what this version makes of the same events: a version of engine.model's store, or a folder",
    )
    command.add_argument(
        "--all-dates", action="store_true", help="compare every as_of of a key on the topics, not only the newest one"
    )
    command.add_argument(
        "--actuals",
        metavar="SOURCE",
        help="what was sold: a Parquet file (the key's fields, date, sales), or topic://NAME of feature events",
    )
    command.add_argument("--movers", type=int, default=10, metavar="N", help="largest changes shown (10)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots, too")
