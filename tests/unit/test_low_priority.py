from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from contextlib import suppress

import pytest

from worker.low_priority import LOWEST, NICE, at_low_priority

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the priority belongs to the process")


def test_gives_what_the_work_gives_from_another_thread() -> None:
    assert at_low_priority(lambda: (6 * 7, threading.get_ident() != main)) == (42, True)


main = threading.get_ident()


def test_raises_what_the_work_raises() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        at_low_priority(broken)


def test_a_wish_to_leave_is_raised_too() -> None:
    def leaving() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as raised:
        at_low_priority(leaving)
    assert raised.value.code == 3


def test_nothing_is_a_result() -> None:
    assert at_low_priority(lambda: None) is None


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
def test_the_work_has_a_low_priority_and_its_caller_keeps_its_own() -> None:
    before = priority()
    assert at_low_priority(priority) == min(LOWEST, before + NICE)
    assert priority() == before


@linux
def test_the_system_is_asked_for_the_works_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "setpriority", lambda *arguments: asked.append(arguments))
    before = priority()
    native = at_low_priority(threading.get_native_id)
    assert asked == [(os.PRIO_PROCESS, 0, min(LOWEST, before + NICE))]  # 0: the thread that asks
    assert native != threading.get_native_id()


def test_it_waits_for_the_work() -> None:
    go_on = threading.Event()
    threading.Timer(0.05, go_on.set).start()
    assert at_low_priority(lambda: go_on.wait(30.0))


@linux
def test_where_the_priority_cant_be_changed_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: int) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "setpriority", denied)
    assert at_low_priority(lambda: 7) == 7


def test_elsewhere_the_priority_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: int) -> None:
        raise AssertionError("a priority was set")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "setpriority", never)
    assert at_low_priority(lambda: 7) == 7


class Held:
    """Stands for an engine."""


def test_what_failed_is_let_go_at_once_without_the_garbage_collector() -> None:
    def fails(held: Held) -> None:
        raise ValueError(repr(held))

    def attempt() -> weakref.ref[Held]:
        held = Held()
        with suppress(ValueError):
            at_low_priority(lambda: fails(held))
        return weakref.ref(held)

    gc.disable()
    try:
        assert attempt()() is None
    finally:
        gc.enable()
