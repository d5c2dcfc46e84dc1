"""The grammar of `forecast-worker dead-letters`.                                                               (pure)"""

from __future__ import annotations

import argparse
from pathlib import Path

from worker.moments import moment_ms
from worker.options import add_settings_options
from worker.records import Reason

_LIST_EPILOG = """\
examples:
  forecast-worker dead-letters list --config worker.toml
  forecast-worker dead-letters list --config worker.toml --reason wrong_length --from 2026-11-22T06:00:00Z --json"""
_SHOW_EPILOG = """\
example:
  forecast-worker dead-letters show 3/1741 --config worker.toml --save event.bin"""
_REDRIVE_EPILOG = """\
examples:
  forecast-worker dead-letters redrive --config worker.toml --reason unknown_schema_id --dry-run
  forecast-worker dead-letters redrive --config worker.toml --reason unknown_schema_id

Each letter is redriven once: the ledger, a topic named after the dead letters' with '.redriven', knows which ones were.
Kill it, run it again, run it with other conditions: none is sent twice and none is forgotten. docs/dead-letters.md says
how."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its actions."""
    command = commands.add_parser(
        "dead-letters",
        help="list, show and redrive dead letters",
        description="Look at the events that were rejected, and send them to the input topic again after a fix.",
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    listing = _action(actions, "list", "count dead letters by reason, with samples", _LIST_EPILOG)
    _add_selection(listing)
    listing.add_argument("--samples", type=_count, default=3, metavar="N", help="letters shown of each reason (3)")
    show = _action(actions, "show", "show one dead letter in full", _SHOW_EPILOG)
    show.add_argument("letter", metavar="PARTITION/OFFSET", help="the letter's position in the dead-letter topic")
    show.add_argument("--save", type=Path, metavar="FILE", help="write the rejected value's bytes to FILE")
    redrive = _action(actions, "redrive", "send rejected events to the input topic again, each once", _REDRIVE_EPILOG)
    _add_selection(redrive)
    redrive.add_argument("--all", action="store_true", help="all of them; else name at least one condition")
    redrive.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    redrive.add_argument("--limit", type=_count, metavar="N", help="N letters at most")
    redrive.add_argument(
        "--max-attempts",
        type=_count,
        default=3,
        metavar="N",
        help="leave events that were redriven N times already (3)",
    )
    redrive.add_argument("--force", action="store_true", help="redrive those, too")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name,
        help=summary,
        description=summary.capitalize() + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_options(action)
    action.add_argument("--json", action="store_true", help="print JSON")
    return action


def _add_selection(action: argparse.ArgumentParser) -> None:
    reasons = [reason.value for reason in Reason]
    action.add_argument(
        "--reason",
        action="append",
        default=[],
        choices=reasons,
        metavar="CODE",
        help=f"may be repeated: {', '.join(reasons)}",
    )
    action.add_argument(
        "--from", dest="from_ms", type=moment_ms, metavar="TIME", help="rejected at or after this time (ISO 8601 or ms)"
    )
    action.add_argument("--to", dest="to_ms", type=moment_ms, metavar="TIME", help="rejected before this time")
    action.add_argument(
        "--partition", action="append", default=[], type=int, metavar="N", help="of the rejected event; may be repeated"
    )
    action.add_argument(
        "--letter", action="append", default=[], metavar="P/O", help="this letter, by its own position; may be repeated"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 0")
    return int(text)
