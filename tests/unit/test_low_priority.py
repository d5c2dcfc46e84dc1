from __future__ import annotations

import gc
import os
import sys
import weakref
from contextlib import suppress

import pytest

from worker.low_priority import LOWEST, NICE, at_low_priority


class Held:
    """Stands for an engine."""


def test_gives_what_the_work_gives_and_raises_what_it_raises() -> None:
    assert at_low_priority(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        at_low_priority(lambda: 1 // 0)


@pytest.mark.skipif(sys.platform != "linux", reason="a priority belongs to a thread on Linux only")
def test_is_lower_than_the_callers_priority_which_stays() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert at_low_priority(lambda: os.getpriority(os.PRIO_PROCESS, 0)) == min(LOWEST, here + NICE)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


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
