"""The threads around a swapper that is a script; what a swapper does is in test_swapper.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

import pytest

from tests.helpers.waiting import wait_until
from worker import model_thread
from worker.errors import FatalEngineError
from worker.handover import Freed, Handover, Look
from worker.model_thread import ModelThread, Watching

FOREVER = float("inf")
GIVE_UP_S = 30.0


class FakeSwapper:
    """Does what `script` says in its turns, one entry each; then sleeps until something is reported."""

    def __init__(self, *script: Callable[[], float]) -> None:
        self.script: SimpleQueue[Callable[[], float]] = SimpleQueue()
        for each in script:
            self.script.put(each)
        self.handled: list[object] = []
        self.turns = 0
        self.closed = 0

    def handle(self, report: object) -> None:
        self.handled.append(report)

    def turn(self) -> float:
        self.turns += 1
        try:
            return self.script.get_nowait()()
        except Empty:
            return FOREVER

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(
        self, tmp_path: Path, *script: Callable[[], float], how: Literal["notify", "poll", "off"] = "off"
    ) -> None:
        self.handover = Handover()
        self.swapper = FakeSwapper(*script)
        self.interval_s = 3600.0
        fake: Any = self.swapper
        self.thread = ModelThread(fake, self.handover, Watching(store=tmp_path, how=how, interval_s=self.interval_s))

    def run(self) -> Bench:
        self.thread.start()
        return self


@pytest.fixture(autouse=True)
def _at_once_after_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_thread, "AFTER_A_BUG_S", 0.0)


def reports_until(bench: Bench, count: int) -> None:
    wait_until(lambda: len(bench.swapper.handled) >= count, f"{count} reports were handled")


def test_it_turns_at_once_and_then_with_every_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path).run()
    wait_until(lambda: bench.swapper.turns == 1, "the first turn")
    freed = Freed(object())  # type: ignore[arg-type]
    bench.handover.inbox.put(freed)
    wait_until(lambda: bench.swapper.turns == 2, "the second turn")
    assert bench.swapper.handled == [freed]
    bench.thread.close()


def test_all_reports_that_wait_are_handled_before_a_turn(tmp_path: Path) -> None:
    seen: list[int] = []
    bench = Bench(tmp_path)

    def look() -> float:
        seen.append(len(bench.swapper.handled))
        return FOREVER

    bench.swapper.script.put(look)
    for _ in range(3):
        bench.handover.inbox.put(Look())
    bench.run()
    wait_until(lambda: bool(seen), "the first turn")
    bench.thread.close()
    assert seen == [3]


def test_it_comes_again_when_the_swapper_wants_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda: 0.0, lambda: 0.001, lambda: -1.0).run()
    wait_until(lambda: bench.swapper.turns == 4, "turns without a report")
    bench.thread.close()
    assert bench.swapper.handled in ([], [Look()])  # closing wakes it


def test_closing_waits_for_the_turn_and_closes_the_swapper_once(tmp_path: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def long_turn() -> float:
        began.set()
        assert go_on.wait(GIVE_UP_S)
        return FOREVER

    bench = Bench(tmp_path, long_turn).run()
    assert began.wait(GIVE_UP_S)
    closing = threading.Thread(target=bench.thread.close)
    closing.start()
    assert bench.swapper.closed == 0
    go_on.set()
    closing.join(GIVE_UP_S)
    bench.thread.close()
    assert (bench.swapper.closed, bench.swapper.turns) == (1, 1)


def test_a_turn_that_never_ends_is_left_behind_with_its_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(model_thread, "JOIN_S", 0.0)

    def stuck() -> float:
        began.set()
        assert go_on.wait(GIVE_UP_S)
        return FOREVER

    bench = Bench(tmp_path, stuck).run()
    assert began.wait(GIVE_UP_S)
    bench.thread.close()
    assert bench.swapper.closed == 0  # its thread still owns them
    go_on.set()


def test_closing_what_was_never_started_closes_the_swapper(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.thread.close()
    assert bench.swapper.closed == 1


def test_an_error_after_which_no_engine_works_is_the_loops(tmp_path: Path) -> None:
    lost = FatalEngineError("the GPU's context is lost")

    def fatal() -> float:
        raise lost

    bench = Bench(tmp_path, fatal).run()
    wait_until(lambda: bench.handover.failed is lost, "the loop is told")
    bench.handover.inbox.put(Look())
    bench.thread.close()
    assert bench.swapper.turns == 1  # nothing was done after it


def bug() -> float:
    raise KeyError("a bug of ours")


def test_a_bug_is_shown_and_ends_nothing(tmp_path: Path) -> None:
    notes: list[tuple[str, ...]] = []
    bench = Bench(tmp_path, bug)

    def look() -> float:
        notes.append(bench.handover.status.notes)
        return FOREVER

    bench.swapper.script.put(look)
    bench.run()
    wait_until(lambda: bench.swapper.turns == 2, "the turn after the bug")
    bench.thread.close()
    assert notes == [("a bug: KeyError('a bug of ours'); see the log",)]


def test_a_bug_that_stays_is_shown_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *[bug] * 5).run()
    wait_until(lambda: bench.swapper.turns == 6, "all turns")
    bench.thread.close()
    assert bench.handover.status.notes == ("a bug: KeyError('a bug of ours'); see the log",)


# -- watching ---------------------------------------------------------------------------------------------------------


def test_switched_off_nothing_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Iterator[object]:
        raise AssertionError("the folder was watched")

    monkeypatch.setattr(model_thread, "changes", never)
    before = threading.active_count()
    bench = Bench(tmp_path).run()
    assert threading.active_count() == before + 1
    bench.thread.close()


def test_each_change_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two(_: Watching, stop: threading.Event) -> Iterator[object]:
        yield from ("a", "b")
        stop.wait(GIVE_UP_S)

    monkeypatch.setattr(model_thread, "changes", two)
    bench = Bench(tmp_path, how="notify").run()
    reports_until(bench, 2)
    bench.thread.close()
    assert all(report == Look() for report in bench.swapper.handled)


def test_a_folder_that_cannot_be_watched_is_looked_at_and_watched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def away(_: Watching, stop: threading.Event) -> Iterator[object]:
        tries.append(1)
        if len(tries) < 3:
            raise FileNotFoundError(2, "the folder is away")
        yield "it is back"
        stop.wait(GIVE_UP_S)

    monkeypatch.setattr(model_thread, "changes", away)
    bench = Bench(tmp_path, how="poll")
    fake: Any = bench.swapper
    bench.thread = ModelThread(fake, bench.handover, Watching(store=tmp_path, how="poll", interval_s=0.001))
    bench.run()
    reports_until(bench, 3)
    bench.thread.close()
    assert len(tries) == 3


def test_the_system_is_asked_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def watch(folder: Path, **options: Any) -> Iterator[object]:
        asked.append({"folder": folder, **options})
        return iter(())

    monkeypatch.setattr("watchfiles.watch", watch)
    stop = threading.Event()
    for how, interval_s in (("notify", 2.0), ("poll", 0.5)):
        model_thread.changes(Watching(store=tmp_path, how=how, interval_s=interval_s), stop)  # type: ignore[arg-type]
    assert [(each["force_polling"], each["rust_timeout"], each["poll_delay_ms"]) for each in asked] == [
        (False, 2000, 2000),
        (True, 500, 500),
    ]
    assert all(each["folder"] == tmp_path and each["stop_event"] is stop for each in asked)
    assert all(
        each["yield_on_timeout"] and not each["raise_interrupt"] and each["watch_filter"] is None for each in asked
    )


def test_a_real_change_is_seen(tmp_path: Path) -> None:
    bench = Bench(tmp_path, how="notify").run()
    written = iter(range(10_000))

    def seen() -> bool:
        (tmp_path / "CURRENT").write_text(f"v{next(written)}")
        return bool(bench.swapper.handled)

    wait_until(seen, "a change of CURRENT was told")
    bench.thread.close()
