from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.helpers.workers import MODEL
from worker.cli import build_parser
from worker.errors import ConfigurationError
from worker.replay import Standing
from worker.replay_book import Totals
from worker.replay_parts import command_of, line_from, standing_from
from worker.replay_request import Names, arguments_of, replay_settings, request_from
from worker.settings import Settings, load_settings

NOW_MS = 1_800_000_000_000


def settings(*more: str) -> Settings:
    needed = ["kafka.bootstrap.servers=x:1", f"engine.model={MODEL}", "delivery.transactional_id=w"]
    return load_settings(None, [*needed, *more], {})


def given(*options: str, name: str = "n") -> argparse.Namespace:
    return build_parser().parse_args(["replay", "--name", name, "--from", "earliest", "--to", "latest", *options])


def test_names_are_made_of_the_live_ones() -> None:
    own = Names.of(settings(), request_from(given(), settings(), NOW_MS))
    assert (own.group, *own.topics) == (
        "forecast-worker.replay.n",
        "sku-forecasts.replay.n",
        "sku-features.dead-letters.replay.n",
    )
    live = Names.of(settings(), request_from(given("--to-live"), settings(), NOW_MS))
    assert live.topics == ("sku-forecasts", "sku-features.dead-letters.replay.n")


@pytest.mark.parametrize("name", ["", ".n", "a b", "ä", "x" * 65, "a/b"])
def test_a_name_must_do_for_a_topic(name: str) -> None:
    with pytest.raises(ConfigurationError, match="--name: got"):
        request_from(given(name=name), settings(), NOW_MS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "0"), "--rate: got 0, expected more than 0"),
        (("--rate", "nan"), "--rate: got nan"),
        (("--workers", "0"), "--workers: got 0"),
        (("--partitions", "x"), "--partitions: got 'x'"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        request_from(given(*options), settings(), NOW_MS)


def test_a_topics_name_has_its_limit() -> None:
    with pytest.raises(ConfigurationError, match="which is too long; choose a shorter one"):
        request_from(given(name="n" * 60), settings(f"output.topic={'t' * 200}"), NOW_MS)


def test_the_rate_may_change_between_runs_and_nothing_else(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a|b\n")
    own = settings()
    first = arguments_of(own, request_from(given("--rate", "5", "--allow-gaps"), own, NOW_MS))
    assert first == arguments_of(own, request_from(given(), own, NOW_MS))
    for other in (("--to-live",), ("--workers", "2"), ("--model", "v"), ("--partitions", "1"), ("--keys", str(keys))):
        assert first != arguments_of(own, request_from(given(*other), own, NOW_MS))
    assert first != arguments_of(settings("input.topic=other"), request_from(given(), own, NOW_MS))


def test_a_replays_settings_are_the_live_ones_but_for_what_must_differ() -> None:
    live = settings("delivery.guarantee=at_least_once", "input.group_instance_id=pod", "batching.max_rows=77")
    own = replay_settings(live, request_from(given(), live, NOW_MS), Path("m"), "3")
    assert own.input.group_id == "forecast-worker.replay.n"
    assert own.input.group_instance_id is None
    assert own.delivery.guarantee == "exactly_once"
    assert own.delivery.transactional_id == "forecast-worker.replay.n.3"
    assert (own.batching.coalesce, own.batching.max_rows) == (False, 77)
    assert own.engine.model == Path("m")
    assert (live.output.topic, live.batching.coalesce) == ("sku-forecasts", True)


def test_a_part_is_started_with_the_same_command(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a|b\n")
    options = ("--keys", str(keys), "--rate", "10.5", "--workers", "3", "--to-live", "--allow-gaps", "--model", "v1")
    asked = given(*options, "--set", "log.level=error", "--set", "input.topic=t", "--config", "c.toml")
    command = command_of(asked, 2)
    assert command[1:3] == ["-m", "worker"]
    again = build_parser().parse_args(command[3:])
    assert again.part == 2
    again.part = None
    assert vars(again) == vars(asked)
    own = settings()
    assert arguments_of(own, request_from(again, own, NOW_MS)) == arguments_of(own, request_from(asked, own, NOW_MS))


def test_a_standing_travels_as_a_line() -> None:
    standing = Standing(totals=Totals(records=3, put_back=1), read=5, left=7, seconds=1.5, paused=True)
    line = line_from(standing)
    assert "\n" not in line
    assert standing_from(line) == standing
