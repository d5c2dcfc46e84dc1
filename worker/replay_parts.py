"""The processes of a replay: this one alone, or several that it starts and watches.

A process is the same command with `--part`. It says how it stands as lines of JSON on its standard output; what it logs
goes where this one's log goes. It ends by itself when its parent is gone. Nothing is shared but the broker: each has its
own partitions and its own transactional.id, so one that fails leaves the others alone.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Final

import structlog

from worker.replay import Standing
from worker.replay_book import Totals

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.2
STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""Both reach a process when somebody stops the replay: SIGTERM by us, SIGINT from its terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one process ended, and where it stood."""

    part: int
    exit_code: int
    standing: Standing


def line_from(standing: Standing) -> str:
    """A standing as one line."""
    return json.dumps(asdict(standing), separators=(",", ":"))


def standing_from(line: str) -> Standing:
    """What `line_from` wrote."""
    content = json.loads(line)
    return Standing(**{**content, "totals": Totals(**content["totals"])})


def command_of(given: argparse.Namespace, part: int) -> list[str]:
    """The command line of process `part`: the same settings and the same request."""
    options: dict[str, object] = {
        "--config": given.config,
        "--name": given.name,
        "--from": given.since,
        "--to": given.until,
        "--partitions": given.partitions,
        "--keys": given.keys,
        "--model": given.model,
        "--rate": given.rate,
        "--workers": given.workers,
        "--part": part,
    }
    command = [sys.executable, "-m", "worker", "replay"]
    command += [f"{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--set={override}" for override in given.overrides]
    command += ["--to-live"] if given.to_live else []
    command += ["--allow-gaps"] if given.allow_gaps else []
    return command


def run_parts(
    commands: Sequence[Sequence[str]], *, tell: Callable[[Sequence[Standing]], None], stopping: Callable[[], bool]
) -> Sequence[Ended]:
    """Run all commands at once until the last one ends: how each did, in their order.

    When `stopping`, all are asked to end (SIGTERM); they finish what is under way. One that has only just been started, and
    doesn't listen to signals yet, is ended by it: it had nothing under way, so its code is 0, too. Whatever ends this
    function, no process is left behind.
    """
    processes = [_started(command) for command in commands]
    try:
        standings, asked = _followed(processes, tell, stopping)
        ended = [process.wait() for process in processes]
        codes = [0 if asked and -code in STOPS else code for code in ended]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            _output(process).close()
    for number, code in enumerate(codes):
        if code:
            log.warning("a process of the replay ended before its end", part=number, exit_code=code)
    return [
        Ended(part=number, exit_code=code, standing=standing)
        for number, (code, standing) in enumerate(zip(codes, standings, strict=True))
    ]


def _followed(
    processes: Sequence[subprocess.Popen[str]],
    tell: Callable[[Sequence[Standing]], None],
    stopping: Callable[[], bool],
) -> tuple[Sequence[Standing], bool]:
    """The last standing of each, and whether they were asked to end; returns when all have closed their output."""
    standings = [Standing() for _ in processes]
    asked = False
    with selectors.DefaultSelector() as selector:
        for number, process in enumerate(processes):
            selector.register(_output(process), selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select(LOOK_S):
                if line := _output(processes[key.data]).readline():
                    standings[key.data] = standing_from(line)
                else:
                    selector.unregister(key.fileobj)
            tell(standings)
            if stopping() and not asked:
                asked = True
                for process in processes:
                    process.send_signal(signal.SIGTERM)
    return standings, asked


def orphaned(parent: int) -> Callable[[], bool]:
    """Says whether the process `parent`, which started this one, is gone."""
    return lambda: os.getppid() != parent


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command line


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    return process.stdout
