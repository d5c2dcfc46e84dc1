"""Options that every command has.                                                                               (pure)"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_settings_options(command: argparse.ArgumentParser) -> None:
    """Where the settings come from."""
    command.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML); see docs/settings.md")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="SECTION.KEY=VALUE",
        help="set one value, over file and environment; may be repeated",
    )
