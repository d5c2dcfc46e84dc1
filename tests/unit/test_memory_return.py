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


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("cores", "arenas"), [(1, ARENAS), (2, ARENAS), (32, 256), (None, ARENAS)])
def test_each_thread_gets_an_arena_and_many_cores_no_fewer_than_by_themselves(
    libc: MagicMock, monkeypatch: pytest.MonkeyPatch, cores: int | None, arenas: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    separate_arenas()
    libc.mallopt.assert_called_once_with(-8, arenas)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_ARENA_MAX", "7"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=7:glibc.malloc.perturb=1")],
)
def test_the_environment_goes_before(libc: MagicMock, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    separate_arenas()
    libc.mallopt.assert_not_called()


def test_other_tunables_say_nothing_of_arenas(libc: MagicMock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=1")
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
