"""The command line as a person meets it: processes of their own, wrong settings, a real broker."""

from __future__ import annotations

import signal
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.jvm import free_ports
from demo.kafka import EmbeddedKafka
from demo.worker_process import toml
from schemas.topics import load_topics
from tests.helpers.commands import Command, Ended, call_command, run_command
from tests.helpers.models import tiny_model
from tests.helpers.workers import MODEL, Job

MINIMAL = {
    "kafka": {"bootstrap.servers": "127.0.0.1:1"},
    "engine": {"model": str(MODEL)},
    "delivery": {"transactional_id": "w"},
    "server": {"port": "off"},
}


def refused(ended: Ended) -> str:
    """The one message of a command that ended because something in its surroundings is wrong."""
    assert ended.code == 2, ended
    assert ended.output == ""
    assert "Traceback" not in ended.message + ended.log
    assert ended.message.startswith("forecast-worker: ")
    assert ended.message.count("forecast-worker: ") == 1
    return ended.message.removeprefix("forecast-worker: ").removesuffix("\n")


def written(folder: Path, **sections: dict[str, object]) -> str:
    """The path of a settings file with `sections` over the minimal ones."""
    config = folder / "worker.toml"
    config.write_text(toml({**MINIMAL, **sections}), encoding="utf-8")
    return str(config)


@pytest.fixture(scope="module")
def unreachable() -> Iterator[Command]:
    """Begun here, because giving up a broker takes its time-out: the other tests run meanwhile."""
    with Command(
        *("run", "--set", f"kafka.bootstrap.servers=127.0.0.1:{free_ports(1)[0]}", "--set", f"engine.model={MODEL}"),
        *("--set", "delivery.transactional_id=w", "--set", "server.port=off"),
    ) as command:
        yield command


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_config_that_is_not_there(unreachable: Command, tmp_path: Path) -> None:
    assert unreachable.pid
    message = refused(run_command("run", "--config", str(tmp_path / "nowhere.toml")))
    assert "nowhere.toml: can't be read: No such file or directory" in message
    assert message.startswith("1 problem in the settings:\n")


def test_a_config_that_is_no_toml_and_other_problems_at_once(tmp_path: Path) -> None:
    config = tmp_path / "worker.toml"
    config.write_text("[kafka\n", encoding="utf-8")
    message = refused(
        call_command("run", "--config", str(config), "--set", "batching.linger_s=soon", "--set", "nonsense")
    )
    first, *problems = message.splitlines()
    assert first == "3 problems in the settings:"
    assert all(problem.startswith("  - ") for problem in problems)
    assert ["not valid TOML" in problems[0], "expected section.key=value" in problems[1]] == [True, True]
    assert problems[2].startswith("  - batching.linger_s (from --set): got 'soon', expected a number")


def test_an_unknown_setting_comes_with_what_was_probably_meant(tmp_path: Path) -> None:
    config = written(tmp_path, batching={"linger": 0.1}, output={"topic": "out"})
    environ = {"FORECAST_WORKER__ENGIN__THREADS": "2"}
    message = refused(call_command("run", "--config", config, environ=environ))
    assert "batching.linger (from" in message
    assert "there is no such setting (did you mean linger_s?)" in message
    assert "there is no section 'engin' (did you mean engine?)" in message
    assert len(message.splitlines()) == 3


def test_settings_prints_what_is_in_effect_without_secrets(tmp_path: Path) -> None:
    config = written(tmp_path, registry={"url": "http://127.0.0.1:1", "username": "me", "password": "hush-1"})
    environ = {"FORECAST_WORKER__KAFKA__SASL_PASSWORD": "hush-2", "FORECAST_WORKER__BATCHING__MAX_ROWS": "99"}
    ended = call_command("settings", "--config", config, "--set", "batching.linger_s=0.01", environ=environ)
    assert (ended.code, ended.message, ended.log) == (0, "", "")
    assert "hush" not in ended.output
    shown = tomllib.loads(ended.output)
    assert (shown["batching"]["max_rows"], shown["batching"]["linger_s"]) == (99, 0.01)
    assert set(shown["kafka"]["sasl.password"]) == set(shown["registry"]["password"]) == {"*"}
    assert (shown["registry"]["username"], shown["engine"]["model"]) == ("me", str(MODEL))


# -- model ------------------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    config = written(tmp_path, engine={"model": "models/none"})
    message = refused(call_command("run", "--config", config))
    assert message.startswith(f"engine.model: there is no file {tmp_path / 'models' / 'none'}")


def test_a_model_without_a_card(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    (folder / "card.json").unlink()
    message = refused(call_command("run", "--config", written(tmp_path, engine={"model": "model"})))
    assert message == (
        f"engine.model: {folder / 'model.onnx'} has no card.json beside it; publish the model together with its card"
    )


def test_a_model_whose_inputs_do_not_fit_the_events(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", inputs={"sales": 30, "price": None, "sku_id": 4})
    config = written(tmp_path, engine={"model": "model"}, batching={"max_rows": 8})
    first, *problems = refused(call_command("run", "--config", config)).splitlines()
    assert first == "the model doesn't fit schema SkuFeatures:"
    assert [problem.split(":")[0] for problem in problems] == ["  - input 'price'", "  - input 'sku_id'"]
    assert "no field of that name in the schema, expected one of [" in problems[0]
    assert (
        "the model takes float32[batch, 4], so the field must be an array of numbers; the schema has string"
        in problems[1]
    )


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_of_every_command() -> None:
    commands = [[], ["run"], ["check"], ["settings"], ["topics"], ["topics", "create"], ["topics", "list"]]
    for command in commands:
        ended = call_command(*command, "--help")
        assert (ended.code, ended.message) == (0, "")
        assert ended.output.startswith(" ".join(["usage: forecast-worker", *command]))
        assert "--config FILE" in ended.output or command in ([], ["topics"])


def test_a_wrong_command_shows_the_usage() -> None:
    ended = run_command("forecast")
    assert ended.code == 2
    assert "invalid choice: 'forecast'" in ended.message


# -- with a broker ----------------------------------------------------------------------------------------------------


def test_topics_are_created_once_and_listed(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    names = ("cli-events", "cli-forecasts", "cli-letters", "cli-control", "cli-states")
    config = written(
        tmp_path,
        kafka={"bootstrap.servers": kafka.bootstrap_servers},
        input={"topic": names[0]},
        output={"topic": names[1], "dead_letter_topic": names[2]},
        fleet={"control_topic": names[3], "state_topic": names[4]},
    )
    before, created, again, after = (
        call_command("topics", action, "--config", config) for action in ("list", "create", "create", "list")
    )
    assert [ended.code for ended in (before, created, again, after)] == [0] * 4
    assert len(before.output.splitlines()) == len(load_topics()) == len(names)
    for name, topic in zip(names, load_topics().values(), strict=True):
        assert f"{name}: missing, declared with {topic.partitions} partitions" in before.output
        assert f"{name}: created\n" in created.output
        assert f"{name}: exists, {topic.partitions} partitions" in again.output
    assert "created" not in again.output
    assert after.output == again.output


def test_every_missing_topic_is_named(job: Job) -> None:
    job.extra = {"log": {"format": "json"}}
    config = job.config("w", output={"topic": "no-forecasts", "dead_letter_topic": "no-letters"})
    message = refused(run_command("run", "--config", str(config)))
    assert message.startswith("topics that don't exist: no-forecasts, no-letters; create them with ")
    config = job.config("w", input={"topic": "no-features"})
    ended = call_command("check", "--config", str(config))
    assert ended.code == 2
    assert ended.message.startswith("forecast-worker: topics that don't exist: no-features; create them with ")


def test_check_says_what_it_verified(job: Job) -> None:
    ended = run_command("check", "--config", str(job.config("w", log={"format": "json"})))
    assert (ended.code, ended.message) == (0, "")
    lines = ended.output.splitlines()
    assert lines[0] == "settings: valid"
    assert lines[1] == "schemas: single_object framing"
    assert lines[2].startswith("model: bakery-smoother ")
    assert "sales[30]" in lines[3]
    assert lines[4] == f"broker: {job.bootstrap} answers, all topics exist"
    assert len(lines) == 5
    assert job.committed() == dict.fromkeys(range(4), -1001)


def test_a_port_that_is_taken(job: Job) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = job.config("w", server={"port": port}, log={"format": "json"})
        message = refused(run_command("run", "--config", str(config)))
    assert message.startswith(f"server.host, server.port: can't listen on 127.0.0.1:{port}: ")
    assert "choose another" in message


def test_sigterm_right_after_the_start(job: Job) -> None:
    config = job.config("w", server={"port": 0}, log={"format": "json"})
    with Command("run", "--config", str(config)) as command:
        command.wait_until(
            lambda: "effective settings" in command.log, "it says its settings as soon as it heeds signals"
        )
        command.send(signal.SIGTERM)
        ended = command.ended()
    assert ended.code == 0, ended
    assert ended.message == ""
    assert '"event": "stopped"' in ended.log


def test_a_broker_that_does_not_answer(unreachable: Command) -> None:
    message = refused(unreachable.ended())
    assert message.startswith("kafka.bootstrap.servers: no broker answers at 127.0.0.1:")
    assert message.endswith("check address, port, TLS and SASL settings")
