"""The command line's grammar: commands, options, help texts. Nothing is done here; `__main__.py` does it."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version

from worker import dead_letters_options, diff_options
from worker.models_options import add_models_parser
from worker.options import add_settings_options
from worker.replay_options import add_replay_parser

PROGRAM = "forecast-worker"

_DESCRIPTION = """\
Reads feature events from Kafka, runs them in batches through a forecasting model, and writes the forecasts back,
exactly once."""

_EPILOG = """\
examples:
  forecast-worker check --config worker.toml           verify settings, broker, topics, registry and model
  forecast-worker topics create --config worker.toml   create the topics that are missing
  forecast-worker run --config worker.toml             work until SIGTERM
  forecast-worker run --config worker.toml --set batching.linger_s=0.05 --set log.format=text

settings, by rising precedence:
  defaults < the file of --config < environment variables FORECAST_WORKER__SECTION__KEY < --set section.key=value
  A librdkafka key goes under kafka: --set kafka.bootstrap.servers=broker:9092,
  FORECAST_WORKER__KAFKA__SASL_PASSWORD_FILE=/run/secrets/kafka (a name ending in _FILE is read from that file).

exit codes:
   0  done; for run: stopped by SIGTERM or SIGINT, everything finished or left for the next worker
   2  configuration: settings, model, schema, broker or topic are wrong; nothing was read or written
   3  delivery failed for good, or its outcome is unknown: restart the worker, which settles it
   4  another worker has taken over this transactional.id or group instance: look for the second one
   5  the engine (or its GPU) is lost: restart the worker
   6  a replay stopped before its end: run the same command again, it goes on
  70  a bug: please report it with the log
"""

_EPILOGS = {
    "run": """\
example:
  forecast-worker run --config worker.toml --set delivery.transactional_id=$HOSTNAME

SIGTERM and SIGINT drain: batches under way are finished and committed within shutdown.grace_s; what isn't is left for
the next worker. The exit code is 0 then; `forecast-worker --help` lists the others.""",
    "check": """\
example:
  forecast-worker check --config worker.toml && forecast-worker run --config worker.toml

Reads only. Exits 0 if run would start, 2 if not, and says what it verified.""",
    "settings": """\
example:
  forecast-worker settings --config worker.toml > effective.toml

Secrets are printed as asterisks. Exits 2 if the settings are wrong, and names every problem.""",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser. Its result has `command` (a key of `__main__.COMMANDS`), `config: Path | None`,
    `overrides: list[str]`, and for topics `action` ("create" or "list").
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {installed_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, summary in (
        ("run", "read, forecast and write until told to stop"),
        ("check", "verify settings, broker, topics, registry and model, and print what was verified"),
        ("settings", "print the effective settings, secrets hidden"),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary.capitalize() + ".",
            epilog=_EPILOGS[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_settings_options(command)
    topics = commands.add_parser(
        "topics", help="create or list the topics", description="Create or list the topics that the worker needs."
    )
    actions = topics.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    for name, summary in (
        ("create", "create the topics that are missing; those that exist stay as they are"),
        ("list", "print the topics, as declared and as they are on the broker"),
    ):
        add_settings_options(actions.add_parser(name, help=summary, description=summary.capitalize() + "."))
    add_models_parser(commands)
    diff_options.add_parser(commands)
    dead_letters_options.add_parser(commands)
    add_settings_options(add_replay_parser(commands))
    return parser


def installed_version() -> str:
    """The version of the installed distribution."""
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "(not installed)"
