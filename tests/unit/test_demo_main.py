from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from demo import __main__ as demo_main
from demo import bakery
from demo.broken import BrokenEvent
from demo.events import EventWriter
from demo.worker_process import toml
from schemas.topics import load_topics
from tests.helpers.series import made_series
from worker.settings import load_settings


def test_settings_are_the_workers(tmp_path: Path) -> None:
    writer = EventWriter(made_series(covariates=("promo",)))
    schemas = demo_main._write_schemas(writer, tmp_path)
    path = tmp_path / "worker.toml"
    path.write_text(toml(demo_main.worker_settings("127.0.0.1:1", tmp_path, schemas)))
    settings = load_settings(path, environ={}, overrides=[])
    assert not settings.batching.coalesce
    assert settings.delivery.guarantee == "exactly_once"
    assert {settings.input.topic, settings.output.topic, settings.output.dead_letter_topic} < set(load_topics())
    assert [json.loads(schema.read_text())["name"] for schema in settings.wire.writer_schemas] == ["SkuFeatures"] * 2


def test_all_good_events_come_once_and_broken_ones_of_each_kind_once() -> None:
    series = made_series(count=100)
    dates = series.as_of_dates(7)
    events = list(demo_main.events_of(EventWriter(series), dates))
    broken = [event for event in events if isinstance(event, BrokenEvent)]
    assert len(events) - len(broken) == len(series) * len(dates)
    assert set(Counter(event.reason for event in broken).values()) == {1}
    assert len(broken) == 11


@pytest.mark.parametrize("days", ["0", "x"])
def test_days_that_are_no_number_of_days_are_refused(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        demo_main.main(["--days", days])
    assert caught.value.code == 2
    assert "--days" in capsys.readouterr().err


def test_days_that_the_model_was_trained_on_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bakery, "load", lambda: replace(made_series(days=80), name="bakery"))
    assert demo_main.main(["--days", "61"]) == 2
    assert "days to play: got 61" in capsys.readouterr().out


def test_data_that_cannot_be_had_end_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRESHRETAILNET_PARQUET", "nowhere.parquet")
    assert demo_main.main(["--data", "freshretailnet"]) == 2
    assert "nowhere.parquet, which isn't a file" in " ".join(capsys.readouterr().out.split())
