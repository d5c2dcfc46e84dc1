"""Run by `demo.jvm` as a process of its own: when its parent is gone, ends the process group and removes the directory.

It leads a process group that the servers join when they are forked, and waits for the end of its standard input, a pipe
that only the parent holds open. The pipe closes when the parent closes it, ends, or is killed by whatever signal, so no
handler in the parent has to run, and it works wherever there are pipes and process groups (Linux and macOS). A "parent death
signal" would be Linux only, would fire when the *thread* that started the server ends, and would leave the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

_REMOVAL_ATTEMPTS = 100


def main(directory: str) -> None:
    """Wait for the parent's end, then leave nothing behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    group = os.getpgrp()
    if os.fork() == 0:  # the group takes this process with it, so the one who cleans up must have left the group
        os.setpgid(0, 0)
        os.killpg(group, signal.SIGKILL)
        for _ in range(_REMOVAL_ATTEMPTS):  # a server that dies may still be closing its files
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.exists(directory):  # noqa: PTH110 - pathlib would double the start-up time of this process
                break
            time.sleep(0.05)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main(sys.argv[1])
