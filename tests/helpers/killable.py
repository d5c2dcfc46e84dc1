"""`python -m tests.helpers.killable CONFIG POINT HIT`: the real worker, which kills itself (SIGKILL) at the HIT-th pass of POINT."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from worker.__main__ import work
from worker.compose import assembled
from worker.logs import configure_logs
from worker.settings import load_settings
from worker.signals import stop_signals


def main() -> None:
    config, point, hit = sys.argv[1:]
    settings = load_settings(Path(config), [], os.environ)
    configure_logs(settings.log.level, "text")
    left = {point: int(hit)}

    def probe(name: str) -> None:
        left[name] = left.get(name, 0) - 1
        if name == point and left[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with assembled(settings, probe=probe) as worker, stop_signals() as stop:
        worker.start()
        work(worker, stop.is_set, settings.shutdown.grace_s)


if __name__ == "__main__":
    main()
