"""What a replay's process does before it works, with the work itself replaced."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import MagicMock

import pytest

from tests.unit.test_replay_parts import plan
from tests.unit.test_replay_request import settings
from worker import replay_command
from worker.replay import Standing


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    made = MagicMock()
    made.replay_part.return_value = Standing(done=True)
    for name in ("freeze_objects", "replay_part"):
        monkeypatch.setattr(replay_command, name, getattr(made, name))
    return made


def names(calls: MagicMock) -> list[str]:
    return [name for name, *_ in calls.mock_calls]


def test_alone_it_freezes_objects_first(calls: MagicMock) -> None:
    (ended,) = replay_command._alone(settings(), plan(), lambda _: None)
    assert ended.exit_code == 0
    assert ended.standing.done
    assert names(calls) == ["freeze_objects", "replay_part"]


def test_so_does_one_of_several(calls: MagicMock, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_command._part(settings(), replace(plan(), resumed=True), 1) == 0
    assert names(calls) == ["freeze_objects", "replay_part"]
    assert capsys.readouterr().out
