from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.swap_phases import Phases, steps_by_phase
from worker.model_status import Phase


def test_each_step_counts_for_the_phase_that_its_middle_is_in() -> None:
    began_s, seconds = [0.0, 1.0, 2.0, 3.0, 4.0], [0.5, 0.6, 0.7, 0.8, 0.9]
    found = steps_by_phase(began_s, seconds, [("prove", 2.9, 4.2), ("load", 0.9, 2.0)])
    assert {name: each["steps"] for name, each in found.items()} == {"none": 3, "prove": 1, "load": 1}
    assert found["load"]["max"] == pytest.approx(0.6)
    assert found["prove"]["p50"] == pytest.approx(0.8)
    assert found["none"]["max"] == pytest.approx(0.9)
    assert found["none"]["p50"] == pytest.approx(0.7)


def test_without_steps_or_phases_there_is_nothing_to_tell() -> None:
    assert steps_by_phase([], [], [("load", 0.0, 1.0)]) == {}
    assert list(steps_by_phase([0.0], [1.0], [])) == ["none"]


def test_phases_are_written_down_beside_whoever_is_told() -> None:
    heard: list[Any] = []
    loader: Any = SimpleNamespace(timed=lambda *told: heard.append(told))
    phases = Phases()
    phases.watch(loader)
    loader.timed(Phase.LOAD, 0.25)
    assert heard == [(Phase.LOAD, 0.25)]
    ((name, began_s, ended_s),) = phases.found
    assert name == "load"
    assert ended_s - began_s == pytest.approx(0.25)
