from __future__ import annotations

from worker.catching_up import BEHIND_S, CAUGHT_UP_S, CatchingUp, CaughtUp


def test_it_tells_once_what_was_read_and_skipped_while_behind() -> None:
    watch = CatchingUp()
    assert watch.look(BEHIND_S - 1, 100, 5, 9.0) is None
    assert watch.look(BEHIND_S, 200, 7, 10.0) is None
    assert watch.look(7200.0, 5000, 900, 12.0) is None
    assert watch.look(CAUGHT_UP_S + 1, 90_000, 40_000, 15.0) is None
    told = watch.look(0.5, 100_100, 45_005, 17.5)
    assert told == CaughtUp(records=100_000, superseded=45_000, seconds=8.5, oldest_s=7200.0)
    assert watch.look(0.1, 100_300, 45_007, 20.0) is None
    assert watch.look(BEHIND_S + 1, 100_350, 45_007, 21.0) is None
    assert watch.look(0.0, 100_400, 45_010, 22.0) == CaughtUp(
        records=100, superseded=3, seconds=2.0, oldest_s=BEHIND_S + 1
    )


def test_one_that_starts_behind_counts_from_its_start() -> None:
    watch = CatchingUp()
    assert watch.look(3600.0, 500, 20, 5.0) is None
    assert watch.look(0.0, 900, 30, 8.0) == CaughtUp(records=900, superseded=30, seconds=3.0, oldest_s=3600.0)
