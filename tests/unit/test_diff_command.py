"""What `diff --model` refuses before it reads a topic."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from tests.helpers.gpu_swapping import settings_for
from tests.helpers.models import tiny_model
from worker import diff_command
from worker.compose_wire import contracts
from worker.errors import ContractError
from worker.forecast_table import Gathered


def test_a_version_that_gets_one_row_alone_wrong_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_command, "reader_of", lambda *_: pytest.fail("a topic was read"))
    settings = settings_for(tiny_model(tmp_path / "serving"))
    arguments = Namespace(model=str(tiny_model(tmp_path / "model", wrong_alone=True)), all_dates=False)
    with pytest.raises(ContractError, match=r"--model: tiny 1, its ONNX file, .*: batch of 1 rows: row 0, day 0"):
        diff_command._recomputed(settings, contracts(settings), Gathered(by_date=False), arguments)
