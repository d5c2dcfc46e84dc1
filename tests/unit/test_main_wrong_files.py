"""Files that `schemas/` finds wrong end a command like every other configuration error: exit code 2 and one message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import worker.__main__ as command_line
from demo.worker_process import toml
from schemas.engine_card import CARD_NAME, CardError
from schemas.load import SchemaError
from schemas.topics import TopicsError
from tests.helpers.commands import logs_as_before
from tests.helpers.models import tiny_model


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    with logs_as_before():
        yield


def config(tmp_path: Path, **tables: dict[str, object]) -> str:
    path = tmp_path / "worker.toml"
    path.write_text(
        toml(
            {
                "kafka": {"bootstrap.servers": "127.0.0.1:1"},
                "engine": {"model": str(tiny_model(tmp_path / "model"))},
                "delivery": {"guarantee": "at_least_once"},
                **tables,
            }
        )
    )
    return str(path)


def one_message(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("forecast-worker: ")
    assert "Traceback" not in error
    return error


def test_a_schema_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.avsc").write_text("[]")
    path = config(tmp_path, wire={"features": str(tmp_path / "own.avsc")})
    assert command_line.main(["check", "--config", path]) == 2
    assert "own.avsc: got 'list', expected an Avro schema" in one_message(capsys)


def test_a_card_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path)
    (tmp_path / "model" / CARD_NAME).write_text("{")
    assert command_line.main(["check", "--config", path]) == 2
    assert f"{CARD_NAME}:\n  - isn't JSON" in one_message(capsys)


@pytest.mark.parametrize(
    "raised", [lambda: SchemaError("wrong"), lambda: CardError("card.json", ("wrong",)), lambda: TopicsError("wrong")]
)
def test_whatever_command_finds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raised: Callable[[], Exception]
) -> None:
    def fail(*_: object) -> int:
        raise raised()

    monkeypatch.setitem(command_line.COMMANDS, "run", fail)
    assert command_line.main(["run", "--config", config(tmp_path)]) == 2
    assert "wrong" in one_message(capsys)


def test_another_value_error_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ValueError("not of ours")

    monkeypatch.setitem(command_line.COMMANDS, "run", fail)
    assert command_line.main(["run", "--config", config(tmp_path)]) == command_line.BUG_EXIT_CODE
