"""The grammar of `forecast-worker models`. What it does is in `models_command.py`.                                  (pure)"""

from __future__ import annotations

import argparse

from worker.options import add_settings_options

ACTIONS = {
    "list": "print versions, commands in force, and what each worker runs",
    "promote": "serve VERSION as if CURRENT named it, until CURRENT names another one than now",
    "rollback": "quarantine the version that serves now, so that all workers go back to the one before",
    "pin": "serve VERSION whatever else is published, until it is released",
    "quarantine": "never serve VERSION: all workers leave it within a second",
    "release": "take back the quarantine, pin or promotion of VERSION",
}
_EPILOG = """\
examples:
  forecast-worker models list --config worker.toml
  forecast-worker models rollback --config worker.toml --reason "orders for milk doubled"
  forecast-worker models release --config worker.toml 2026-11-22

Commands go over fleet.control_topic to all workers of the model. Which version serves when several wishes are in force
is said in docs/hot-swap.md. Exits 0 when the brokers have the command, 2 if it can't be given."""


def add_models_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models` and its actions to the command line."""
    models = commands.add_parser(
        "models",
        help="show model versions and what workers run, or tell all workers which to serve",
        description="Show model versions and what workers run, or tell all workers which to serve.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name not in {"list", "rollback"}:
            action.add_argument("version", metavar="VERSION", help="name of a published version")
        if name != "list":
            action.add_argument("--reason", default="", help="why, for whoever looks at it later")
            action.add_argument("--by", default=None, help="who gives the command; default: user@host")
        add_settings_options(action)
