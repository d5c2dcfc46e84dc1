"""One process of a replay, with stand-ins for what its plan would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from tests.helpers.clock import ManualClock
from tests.unit.test_replay_parts import plan
from tests.unit.test_replay_request import settings
from worker import replay
from worker.errors import ReplayStoppedError
from worker.replay import Standing, replay_part
from worker.replay_book import Totals
from worker.replay_compose import Part


class Breaks:
    """A worker that commits two records in each of its first three steps and fails in the fourth."""

    def __init__(self) -> None:
        self.statistics = SimpleNamespace(records=0)
        self.stuck = None
        self.delivery = SimpleNamespace(totals=Totals())
        self.abandoned = False

    def start(self) -> None:
        pass

    def step(self) -> None:
        if self.statistics.records == 6:
            raise ReplayStoppedError("deleted")
        self.statistics.records += 2
        self.delivery.totals = self.delivery.totals.plus(Totals(records=2, forecasts=2, commits=1))

    def abandon(self) -> None:
        self.abandoned = True


def test_what_was_committed_before_an_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Breaks()
    part = SimpleNamespace(
        worker=worker,
        delivery=worker.delivery,
        source=SimpleNamespace(done=False, left_offsets=4),
        throttle=SimpleNamespace(paused=False, paused_s=0.0),
    )

    @contextmanager
    def assembled(*_: object, **__: object) -> Iterator[Part]:
        yield cast(Part, part)

    monkeypatch.setattr(replay, "assembled_part", assembled)
    told: list[Standing] = []
    with pytest.raises(ReplayStoppedError):
        replay_part(settings(), plan(), 0, tell=told.append, stopping=lambda: False, clock=ManualClock())
    assert worker.abandoned
    assert told[-1].totals == Totals(records=6, forecasts=6, commits=3)
    assert not told[-1].done
