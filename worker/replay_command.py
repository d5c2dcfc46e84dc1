"""`forecast-worker replay`: what the command does, from its arguments to its exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

import structlog

from worker.collector import freeze_objects
from worker.errors import ConfigurationError, ReplayStoppedError
from worker.replay import Standing, replay_part
from worker.replay_parts import Ended, command_of, line_from, orphaned, run_parts
from worker.replay_plan import Plan, Planner
from worker.replay_progress import Tell, lines_of, shown, summary
from worker.replay_request import request_from
from worker.settings_model import Settings
from worker.signals import stop_signals
from worker.wall_clock import wall_clock_ms

log = structlog.get_logger(__name__)


def replay(settings: Settings, given: argparse.Namespace) -> int:
    """Replay a span, or go on with it. Nothing is written before everything is checked."""
    if given.part is None:  # those that this one starts are as nice as it is
        os.nice(settings.replay.niceness)
    request = request_from(given, settings, wall_clock_ms())
    planner = Planner(settings, request)
    try:
        plan = planner.plan()
        if given.part is not None:
            return _part(settings, plan, given.part)
        _check_writable(given)
        plan = planner.open(plan)
    finally:
        planner.close()
    log.info("replay goes on" if plan.resumed else "replay begins", name=request.name, partitions=sorted(plan.pages))
    with shown(plan, time.monotonic) as tell:
        ended = _alone(settings, plan, tell) if request.workers == 1 else _several(given, request.workers, tell)
    content = summary(plan, ended)
    if given.json is not None:
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("".join(f"{line}\n" for line in lines_of(content)))
    codes = [each.exit_code for each in ended if each.exit_code]
    if not codes and content["finished"]:
        return 0
    return next((code for code in codes if code > 0), ReplayStoppedError.exit_code)


def _alone(settings: Settings, plan: Plan, tell: Tell) -> Sequence[Ended]:
    """In this process. An error goes up with its own message and exit code."""
    freeze_objects()  # mostly modules, as engines and clients are yet to be made
    with stop_signals() as stop:
        standing = replay_part(settings, plan, 0, tell=lambda standing: tell([standing]), stopping=stop.is_set)
    return [Ended(part=0, exit_code=0, standing=standing)]


def _several(given: argparse.Namespace, workers: int, tell: Tell) -> Sequence[Ended]:
    with stop_signals() as stop:
        return run_parts([command_of(given, part) for part in range(workers)], tell=tell, stopping=stop.is_set)


def _part(settings: Settings, plan: Plan, number: int) -> int:
    """One of several processes."""
    if not plan.resumed:
        raise ConfigurationError("--part is for processes that a replay starts itself; leave it out")
    is_orphan = orphaned(os.getppid())

    def tell(standing: Standing) -> None:
        sys.stdout.write(f"{line_from(standing)}\n")
        sys.stdout.flush()

    freeze_objects()
    with stop_signals() as stop:
        standing = replay_part(settings, plan, number, tell=tell, stopping=lambda: stop.is_set() or is_orphan())
    tell(standing)
    return 0


def _check_writable(given: argparse.Namespace) -> None:
    """Find out now, not after an hour of work, that the summary can't be written."""
    if given.json is None:
        return
    try:
        given.json.touch()
    except OSError as error:
        raise ConfigurationError(f"--json {given.json}: can't be written: {error.strerror}") from error
