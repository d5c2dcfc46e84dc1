"""Processes of a replay, played by one-liners."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest

from tests.helpers.clock import ManualClock
from tests.unit.test_replay_book import PAGE
from worker.records import Span
from worker.replay import Standing
from worker.replay_book import Page, Totals
from worker.replay_parts import Ended, line_from, orphaned, run_parts
from worker.replay_plan import Plan
from worker.replay_progress import lines_of, rate_per_s, shown, summary
from worker.replay_request import Names, Request
from worker.replay_span import Bound


def saying(*standings: Standing, code: int = 0) -> list[str]:
    lines = "\\n".join(line_from(standing).replace('"', '\\"') for standing in standings)
    return [sys.executable, "-c", f'import sys; print("{lines}", flush=True); sys.exit({code})']


def plan() -> Plan:
    bound = Bound("latest", 0, "latest")
    request = Request(
        name="n",
        since=bound,
        until=bound,
        partitions=None,
        keys=None,
        model="",
        rate_per_s=None,
        workers=2,
        to_live=False,
        allow_gaps=False,
    )
    page = Page(
        arguments=PAGE.arguments, partitions="0-1", span=Span(10, 110), version="v1", digest="d", totals=Totals()
    )
    names = Names(group="g", forecasts="f", dead_letters="l")
    return Plan(request=request, names=names, model=Path("m"), pages={0: page, 1: page}, resumed=True)


def test_each_ends_by_itself_with_its_last_standing() -> None:
    first, last = Standing(read=1, left=9), Standing(totals=Totals(records=10, forecasts=10), read=10, done=True)
    told: list[Sequence[Standing]] = []
    ended = run_parts(
        [saying(first, last), saying(first, code=3)], tell=lambda each: told.append(tuple(each)), stopping=lambda: False
    )
    assert ended == [
        Ended(part=0, exit_code=0, standing=last),
        Ended(part=1, exit_code=3, standing=first),
    ]
    assert told[-1] == (last, first)


def test_all_are_asked_to_end_when_it_stops() -> None:
    waiting = [
        sys.executable,
        "-c",
        "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(6))\nprint('"
        + line_from(Standing())
        + "', flush=True)\n"
        "signal.pause()",
    ]
    told: list[Sequence[Standing]] = []
    ended = run_parts([waiting, waiting], tell=told.append, stopping=lambda: len(told) > 4)
    assert [each.exit_code for each in ended] == [6, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_did_not_listen_to_signals_yet_has_nothing_to_finish(number: signal.Signals) -> None:
    told: list[Sequence[Standing]] = []
    script = (
        f"import os, signal\nsignal.signal({number}, signal.SIG_DFL)\nprint('{line_from(Standing())}', flush=True)\n"
    )
    wait = [sys.executable, "-c", script + "signal.pause()"]
    hit = [sys.executable, "-c", script + f"os.kill(os.getpid(), {number})"]
    ended = run_parts([wait, hit], tell=told.append, stopping=lambda: len(told) > 4)
    assert [each.exit_code for each in ended] == [0, 0]
    ended = run_parts([hit], tell=told.append, stopping=lambda: False)
    assert [each.exit_code for each in ended] == [-number]  # nobody asked for that


def test_whatever_ends_it_no_process_is_left() -> None:
    def fail(_: Sequence[Standing]) -> None:
        raise RuntimeError("shown badly")

    with pytest.raises(RuntimeError, match="shown badly"):
        run_parts([[sys.executable, "-c", "import time; time.sleep(60)"]], tell=fail, stopping=lambda: False)


def test_an_orphan_has_another_parent() -> None:
    assert orphaned(-1)()


def test_a_summary_adds_up_and_says_who_failed() -> None:
    done = Standing(totals=Totals(records=70, forecasts=69, rejected=1, commits=3), read=50, seconds=2.0, done=True)
    stopped = Standing(totals=Totals(records=30, forecasts=30, commits=1), read=30, seconds=3.0, left=20)
    found = summary(plan(), [Ended(part=0, exit_code=0, standing=done), Ended(part=1, exit_code=5, standing=stopped)])
    assert not found["finished"]
    assert found["totals"] == {
        **dict.fromkeys(("withdrawn", "left_alone", "not_selected", "put_back"), 0),
        "records": 100,
        "forecasts": 99,
        "rejected": 1,
        "commits": 4,
    }
    assert found["run"] == {"records": 80, "seconds": 3.0, "records_per_s": 35.0, "paused_s": 0.0}
    assert found["workers"] == [
        {"part": 0, "exit_code": 0, "done": True},
        {"part": 1, "exit_code": 5, "done": False},
    ]
    text = "\n".join(lines_of(found))
    assert "stopped before its end; run the same command to go on" in text
    assert "records 100, forecasts 99" in text
    whole = summary(plan(), [Ended(part=0, exit_code=0, standing=done)])
    assert next(iter(lines_of(whole))) == "replay n: finished"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock()
    standing = Standing(read=500, left=100, seconds=5.0, paused=True)
    assert rate_per_s([standing, Standing()]) == 100
    with shown(plan(), clock) as tell:
        tell([standing])
        assert "replaying" not in capsys.readouterr().out
        clock.advance(10)
        tell([standing])
    said = capsys.readouterr().out
    assert "offsets_left=100" in said
    assert "left_s=1" in said


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with shown(plan(), ManualClock()) as tell:
        tell([Standing()])
        tell([Standing(read=3000, left=150, seconds=2.0, paused=True), Standing(read=0, left=0)])
    said = terminal.getvalue()
    assert "replay n" in said
    assert "1,500 records/s, paused: live work comes first" in said
    assert "25%" in said
    assert "left" in said
