"""`python -m tests.helpers.killable_redrive CONFIG POINT HIT`: redrives all dead letters, and kills itself (SIGKILL) at the
HIT-th pass of POINT."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from worker import redrive
from worker.cli import build_parser
from worker.dead_letters_command import redrive as redrive_all
from worker.logs import configure_logs
from worker.settings import load_settings


def main() -> None:
    config, point, hit = sys.argv[1:]
    settings = load_settings(Path(config), [], os.environ)
    configure_logs("warning", "text")
    redrive.CHUNK_LETTERS = 300
    left = {point: int(hit)}

    def probe(name: str) -> None:
        left[name] = left.get(name, 0) - 1
        if name == point and left[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    arguments = build_parser().parse_args(["dead-letters", "redrive", "--all", "--config", config])
    redrive_all(settings, arguments, probe=probe)


if __name__ == "__main__":
    main()
