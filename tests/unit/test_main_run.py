"""`forecast-worker run`: what is done in which order, with everything around it replaced."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from unittest.mock import MagicMock

import pytest

import worker.__main__ as command_line
from tests.helpers.commands import logs_as_before


def test_arenas_come_before_threads_and_objects_are_frozen_between_start_and_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = MagicMock()
    for name in ("separate_arenas", "assembled", "freeze_objects", "work"):
        monkeypatch.setattr(command_line, name, getattr(calls, name))
    monkeypatch.setattr(command_line, "_serving", lambda *_: nullcontext())
    monkeypatch.setattr(command_line, "_summary", lambda _: {})
    calls.assembled.return_value = nullcontext(calls.worker)
    with logs_as_before():
        assert command_line.run(MagicMock(), argparse.Namespace()) == 0
    done = [name for name, *_ in calls.mock_calls]
    assert done == ["separate_arenas", "assembled", "worker.start", "freeze_objects", "work"]
