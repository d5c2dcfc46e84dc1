import re
from pathlib import Path

import pytest

import worker.errors
from worker.cli import build_parser, installed_version
from worker.errors import ForecastWorkerError


@pytest.mark.parametrize("command", [["run"], ["check"], ["settings"], ["topics", "create"], ["topics", "list"]])
def test_every_command_takes_settings(command: list[str]) -> None:
    found = build_parser().parse_args([*command, "--config", "w.toml", "--set", "a.b=1", "--set", "c.d=2"])
    assert found.command == command[0]
    assert getattr(found, "action", None) == (command[1] if len(command) > 1 else None)
    assert found.config == Path("w.toml")
    assert found.overrides == ["a.b=1", "c.d=2"]


def test_options_are_optional_and_not_shared_between_calls() -> None:
    parser = build_parser()
    parser.parse_args(["run", "--set", "a.b=1"])
    found = parser.parse_args(["run"])
    assert (found.config, found.overrides) == (None, [])


@pytest.mark.parametrize("arguments", [[], ["fly"], ["topics"], ["run", "--nosuch"]])
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        build_parser().parse_args(arguments)
    assert exited.value.code == 2
    assert "usage: forecast-worker" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        build_parser().parse_args(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"forecast-worker {installed_version()}\n"


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["settings"], ["topics"], ["topics", "create"]])
def test_help_reads_well(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([*command, "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: forecast-worker")
    assert max(map(len, text.splitlines())) <= 120


def exit_codes() -> set[int]:
    classes = [kind for kind in vars(worker.errors).values() if isinstance(kind, type)]
    return {kind.exit_code for kind in classes if issubclass(kind, ForecastWorkerError)}


def test_the_help_and_the_manual_name_every_exit_code() -> None:
    text = build_parser().format_help()
    assert {int(code) for code in re.findall(r"^ +(\d+)  ", text, re.MULTILINE)} == {0, *exit_codes()}
    manual = Path(__file__).parents[2].joinpath("docs", "errors.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", manual, re.MULTILINE)} == {0, *exit_codes()}
