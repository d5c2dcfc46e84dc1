"""`forecast-worker diff` on a real broker: two topics, and a model version against the live topic."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import call_command
from tests.helpers.models import tiny_model
from tests.helpers.topics import produce, read_all
from tests.helpers.workers import Job, decoded, event, key

EVENTS = 60
FIRST = dt.date(1970, 1, 1) + dt.timedelta(days=19_900)


def answered(job: Job, *arguments: str) -> dict[str, Any]:
    ended = call_command("diff", *arguments, "--config", str(job.config("diff", log={"format": "json"})), "--json")
    assert (ended.code, ended.message) == (0, ""), ended
    found = json.loads(ended.output)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def served(job: Job, tmp_path: Path) -> Job:
    """A worker has forecast every event, twice for each key but the last ten."""
    job.extra = {"engine": {"model": str(tiny_model(tmp_path / "old", max_rows=4096))}}
    job.send(range(EVENTS))
    job.send_raw([(key(n), event(n, 19_901), n % 4) for n in range(EVENTS - 10)])
    with job.worker("w") as worker:
        job.wait_done(job.ends())
        assert worker.stop() == 0, worker.log
    return job


def test_a_topic_with_itself_has_not_changed_and_half_of_it_lacks_keys(served: Job, topics: Any) -> None:
    same = answered(served, served.forecasts, served.forecasts)
    assert (same["matched"], same["identical"], same["movers"], same["accuracy"]) == (EVENTS, EVENTS, [], None)
    assert answered(served, served.forecasts, served.forecasts, "--all-dates")["matched"] == 2 * EVENTS - 10
    half = topics("half", 2)
    messages = [m for m in read_all(served.bootstrap, served.forecasts) if m.value and m.key]
    first = [m for m in messages if decoded("sku_forecast", m.value)["as_of"] == FIRST][:40]
    produce(served.bootstrap, half, [(m.key, m.value, m.timestamp_ms, 0) for m in first])
    produce(served.bootstrap, half, [(b"foreign", b"nonsense", 1, 1), (first[0].key, None, 1, 0)])
    found = answered(served, served.forecasts, half)
    newest = sum(int(decoded("sku_forecast", m.value)["sku_id"][3:]) >= EVENTS - 10 for m in first[1:])
    assert (found["matched"], found["other_date"], found["only_before"]) == (newest, 39 - newest, EVENTS - 39)
    assert found["after"]["left_out"] == {"can't be read": 1}


def test_a_version_on_the_same_events_with_what_was_sold(served: Job, tmp_path: Path) -> None:
    twin = tiny_model(tmp_path / "twin", version="2", max_rows=16)
    other = tiny_model(tmp_path / "other", version="3", inputs={"sales": 30}, quantiles=(0.5, 0.9), horizon=5)
    found = answered(served, "--model", str(twin))
    assert (found["matched"], found["identical"]) == (EVENTS, EVENTS)
    assert found["after"]["models"] == {"tiny 2": EVENTS}
    page = tmp_path / "diff.html"
    found = answered(
        served, "--model", str(other), "--actuals", f"topic://{served.source}", "--html", str(page), "--all-dates"
    )
    assert (found["matched"], found["days"], set(found["by_level"])) == (2 * EVENTS - 10, 3, {"0.5", "0.9"})
    # Only the events of the first date have a next day that is known: the second event's last.
    assert found["accuracy"]["before"]["cells"] == EVENTS - 10
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 5
    assert not re.search(r"(src|href)=\"(?!#)", text)


def test_events_that_are_gone_are_counted(served: Job, topics: Any, tmp_path: Path) -> None:
    twin = tiny_model(tmp_path / "twin", version="2")
    config = served.config("elsewhere", input={"topic": topics("empty")}, log={"format": "json"})
    ended = call_command("diff", served.forecasts, "--model", str(twin), "--config", str(config), "--json")
    found = json.loads(ended.output)
    assert (found["matched"], found["only_before"]) == (0, EVENTS)
    assert found["after"]["left_out"] == {"event isn't on the topic any more": EVENTS}
    assert found["overall"]["relative"] is None
    shown = call_command("diff", served.forecasts, served.forecasts, "--config", str(config))
    assert "of these, equal in every bit" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got no topic and no --model, expected two topics, or --model"),
        (["one"], "got 1 topics and no --model"),
        (["one", "two", "--model", "x"], "got 2 topics and --model"),
        (["--model", "x"], "--model: got 'x'; engine.model"),
        (["nowhere", "nowhere"], "topic nowhere: "),
    ],
)
def test_what_cannot_be_compared_is_said(job: Job, arguments: list[str], message: str) -> None:
    ended = call_command("diff", *arguments, "--config", str(job.config("diff", log={"format": "json"})))
    assert (ended.code, ended.output) == (2, "")
    assert message in ended.message
