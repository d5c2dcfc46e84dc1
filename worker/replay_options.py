"""The grammar of `forecast-worker replay`.                                                                       (pure)"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  forecast-worker replay --config worker.toml --name november --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z
  forecast-worker replay --config worker.toml --name p3 --partitions 3 --from offset:120000 --to latest --model 2026-11-20
  forecast-worker replay --config worker.toml --name outage --from 2026-11-20T06:00:00+01:00 --to latest --to-live

The forecasts go to <output.topic>.replay.NAME, dead letters to <output.dead_letter_topic>.replay.NAME; both are created
like the live ones. Killed or stopped, the same command goes on where the last commit was. With --to-live only keys whose
live forecast is older are written. docs/replay.md tells more.

exit codes: 0 finished; 2 refused, nothing was written; 3, 4, 5, 70 as for run; 6 stopped before its end: run it again."""


def add_replay_parser(commands: Any) -> argparse.ArgumentParser:  # noqa: ANN401 - argparse's type is private
    """Add the command. Its result has `name`, `since`, `until`, `partitions`, `keys`, `model`, `rate`, `workers`, `to_live`,
    `allow_gaps`, `json` and, in a process that the command itself has started, `part`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay",
        help="compute a span of the input topic again, for backfill",
        description="Compute a span of the input topic again, exactly once, beside the live workers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bound = "time with zone (ISO 8601), offset:N, earliest or latest"
    parser.add_argument("--name", required=True, help="names the replay: its topics, its progress")
    parser.add_argument("--from", required=True, dest="since", metavar="WHEN", help=f"first record: {bound}")
    parser.add_argument("--to", required=True, dest="until", metavar="WHEN", help=f"first record not replayed: {bound}")
    parser.add_argument("--partitions", metavar="LIST", help="e.g. 0,3-5 (default: all)")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="only these keys, one per line (sku|store)")
    parser.add_argument(
        "--model", metavar="VERSION|PATH", help="version in the model store, or a folder (default: serving)"
    )
    parser.add_argument("--rate", type=float, metavar="ROWS/S", help="read no faster than this, all processes together")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each with its partitions")
    parser.add_argument(
        "--to-live", action="store_true", help="write to the live topic what is fresher than what is there"
    )
    parser.add_argument("--allow-gaps", action="store_true", help="go on though records of the span were deleted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there, too")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    return parser
