"""Files that are there whole or not at all, also after a crash or a power cut, and one publisher at a time.

Whatever is written is written aside, under a hidden name in the same folder, synced, and renamed. What a crash leaves behind is
hidden and is removed by whoever holds the lock next.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine_build.errors import PublishError

LOCK_NAME: Final = ".lock"
_ASIDE: Final = (".incoming-", ".removed-")
_POLL_S: Final = 0.2


class Disk:
    """The changes that a publisher makes. Each method is one step: before it nothing of it holds, after it all of it."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file and sync it; after a crash it may hold a part of `content`, so nobody may know its name yet."""
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder its name, in place of a file that has it."""
        old.replace(new)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder last."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder that no reader needs."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def aside(path: Path, kind: str = "incoming") -> Path:
    """A hidden name beside `path` that nothing has yet."""
    return path.with_name(f".{kind}-{path.name}-{secrets.token_hex(4)}")


def replace_file(disk: Disk, path: Path, content: bytes) -> None:
    """Make `path` hold `content`: a reader sees the old file or the new one."""
    new = aside(path)
    disk.write(new, content)
    disk.rename(new, path)
    disk.sync_folder(path.parent)


def remove_leftovers(disk: Disk, folder: Path) -> None:
    """Remove what publishers that died left in `folder`. The lock must be held."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_ASIDE):
            disk.remove(path)


@contextmanager
def publisher_lock(
    store: Path,
    *,
    wait_s: float,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """The right to change `store` while the block runs. The system gives it back when its holder dies.

    Raises `PublishError` if another publisher doesn't end within `wait_s` seconds.
    """
    path = store / LOCK_NAME
    with path.open("ab") as file:
        deadline_s = clock_s() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if clock_s() >= deadline_s:
                    raise PublishError(
                        f"{path}: another publisher has held it for over {wait_s:g} s; wait for it, or see what hangs there"
                    ) from error
                sleep(_POLL_S)
        yield
