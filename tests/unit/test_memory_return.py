from __future__ import annotations

import sys
from unittest.mock import MagicMock

import numpy as np
import pytest

from worker import memory_return
from worker.memory_return import ARENAS, give_back, separate_arenas


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    made = MagicMock()
    monkeypatch.setattr(memory_return, "_libc", lambda: made)
    return made


def test_arenas_are_limited_unless_the_environment_says_how_many(
    libc: MagicMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    separate_arenas()
    libc.mallopt.assert_called_once_with(-8, ARENAS)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    separate_arenas()
    libc.mallopt.assert_called_once()


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_return, "_libc", lambda: None)
    separate_arenas()
    give_back()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_was_freed_goes_back_to_the_system() -> None:
    blocks = [np.ones(12_000, np.float32) for _ in range(1000)]  # 48 kB each: too small to be mapped on its own
    kept = blocks[::100]  # at the top, too, so that nothing goes back by itself
    before = resident_bytes()
    del blocks
    give_back()
    assert resident_bytes() < before - 20_000_000
    assert len(kept) == 10


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - one line of a pseudo file
        return int(file.read().split()[1]) * 4096
