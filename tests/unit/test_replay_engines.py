"""The loop with a replay's engines: one model, whatever the guard says."""

from __future__ import annotations

import pytest

from tests.helpers.rig import Rig
from tests.unit.test_forecasting import LIMITS, MAIN_DIGEST, by, main, rig, send, settle
from worker.errors import EngineError, ReplayStoppedError
from worker.guard import Rule
from worker.guard_reference import Reference
from worker.replay_engines import OneModel


def replay(*, backup: bool = True, **limits: object) -> Rig:
    made = rig(backup=backup, slot_class=OneModel)
    made.limits = LIMITS.model_copy(update=limits)
    return made


def again(made: Rig) -> None:
    made.restart()
    made.source.assign(0, 1)


@pytest.mark.parametrize("backup", [True, False])
def test_a_drift_ends_it_before_another_model_writes_anything_and_says_how_to_go_on(backup: bool) -> None:  # noqa: FBT001
    made = replay(backup=backup)
    main(made).scale = 1.3
    send(made, *range(100, 140))
    with pytest.raises(ReplayStoppedError, match=r"Christmas for one.* --set guard.without_backup=publish to go on"):
        settle(made)
    assert {digest for _, digest, _ in by(made)} <= {"fa"}


def test_and_so_it_goes_on_with_its_own_model() -> None:
    made = replay(without_backup="publish")
    again(made)
    main(made).scale = 1.3
    send(made, *range(100, 140))
    settle(made)
    assert [digest for _, digest, _ in by(made)] == ["fa"] * 40


def test_single_rows_still_come_from_the_backup_too_many_end_it() -> None:
    made = replay()
    main(made).spoilt = frozenset({101.0})
    send(made, *range(100, 108))
    settle(made)
    assert [digest for _, digest, _ in by(made)] == ["fa", "bb"] + ["fa"] * 6
    main(made).spoilt = frozenset(map(float, range(108, 140)))
    send(made, *range(108, 140))
    with pytest.raises(ReplayStoppedError, match=f"{Rule.FAULT_SHARE}.* no backup takes over. Replay with another"):
        settle(made)


def test_a_dead_engine_ends_it_with_its_own_error() -> None:
    made = replay()
    main(made).dead = True
    send(made, 100)
    with pytest.raises(EngineError):
        settle(made)
    assert by(made) == []


def test_a_slow_engine_stays() -> None:
    made = replay(latency_batches=3)
    made.references[MAIN_DIGEST] = Reference(latency_budget_s=0.1, budget_rows=4)
    again(made)
    submit = main(made).submit

    def slowly(slot: object, rows: int) -> object:
        made.clock.advance(0.2)
        return submit(slot, rows)  # type: ignore[arg-type]

    main(made).submit = slowly  # type: ignore[method-assign, assignment]
    send(made, *range(100, 116))
    settle(made)
    assert [digest for _, digest, _ in by(made)] == ["fa"] * 16
