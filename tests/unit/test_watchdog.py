from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.clock import ManualClock
from worker.deadline import Deadline
from worker.watchdog import MARGIN_S, Limit, Watchdog

ROOT = Path(__file__).resolve().parents[2]


def test_a_call_past_its_deadline_and_margin_is_reported() -> None:
    clock = ManualClock()
    overrun: list[Limit] = []
    dog = Watchdog(clock, overrun.append)
    with dog.watching("commit", Deadline.after(2.0, clock)):
        clock.advance(2.0 + MARGIN_S)
        dog.check()
        assert not overrun
        clock.advance(0.1)
        dog.check()
    assert [limit.doing for limit in overrun] == ["commit"]


def test_a_call_that_came_back_is_forgotten() -> None:
    clock = ManualClock()
    overrun: list[Limit] = []
    dog = Watchdog(clock, overrun.append)
    with dog.watching("commit", Deadline.after(2.0, clock)):
        pass
    clock.advance(1000.0)
    dog.check()
    assert not overrun


def test_its_thread_checks_by_itself_and_ends_when_closed() -> None:
    clock = ManualClock()
    seen = threading.Event()
    dog = Watchdog(clock, lambda _: seen.set())
    dog.start()
    with dog.watching("commit", Deadline.after(0.0, clock)):
        clock.advance(MARGIN_S + 1.0)
        assert seen.wait(30.0)
    dog.close()
    dog.close()


def test_leaving_names_the_call_and_shows_the_stacks() -> None:
    code = "from worker.watchdog import Limit, leave; leave(Limit('send_offsets_to_transaction', 0.0))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "send_offsets_to_transaction didn't return within its time-out" in ended.stderr
    assert "most recent call first" in ended.stderr
