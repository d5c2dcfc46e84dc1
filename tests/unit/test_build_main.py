"""How `engine-build` ends when something is wrong that nobody expected."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from engine_build import __main__ as program
from engine_build.build_command import _write_report
from engine_build.errors import InputError, PlanError

ROOT = Path(__file__).parents[2]


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code when a command raises `error`."""

    def run(_: argparse.Namespace, __: Console) -> int:
        raise error

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(program, "build_parser", lambda: parser)
    return program.main([])


def test_a_bug_ends_with_70_says_where_it_is_and_what_still_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(KeyError("golden"), monkeypatch) == 70
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "engine-build: unexpected KeyError at test_build_main.py:" in said
    assert "in run: 'golden'" in said
    assert "CURRENT and every published version are whole. Please report it with the traceback" in said


def test_what_is_expected_comes_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(PlanError("no GPU"), monkeypatch) == 7
    assert capsys.readouterr().err == "engine-build: no GPU\n"


def test_ctrl_c_ends_with_130_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "engine-build: interrupted; CURRENT and every published version are whole\n"


def test_a_reader_that_is_gone_is_no_matter_for_words(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "engine_build", "list", str(ROOT / "models")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with os.fdopen(write, "wb") as output:
        ended = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, env=environment, cwd=tmp_path, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_report_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="the report can't be written: No such file or directory; nothing was published"
    ):
        _write_report(tmp_path / "none" / "report.json", {})
