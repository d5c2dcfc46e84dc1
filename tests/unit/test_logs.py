import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from worker.logs import configure_logs, hide_secrets, kafka_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_with_utc_time_level_and_logger(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    structlog.get_logger("worker.loop").info("committed", rows=5, topic="größe")
    (event,) = events(stream)
    time = datetime.fromisoformat(str(event.pop("time")))
    assert time.utcoffset() == datetime.now(UTC).utcoffset()
    assert event == {"event": "committed", "rows": 5, "topic": "größe", "level": "info", "logger": "worker.loop"}


def test_text_for_people(stream: io.StringIO) -> None:
    configure_logs("info", "text", stream)
    structlog.get_logger("x").warning("lag grows", records=7)
    line = stream.getvalue()
    assert "lag grows" in line
    assert "records=7" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_holds_for_all_loggers(stream: io.StringIO, level: str, count: int) -> None:
    configure_logs(level, "json", stream)  # type: ignore[arg-type]
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("x"), name)("one")
        getattr(logging.getLogger("y"), name)("two")
    assert len(events(stream)) == 2 * count


def test_librdkafkas_lines_come_out_like_all_others(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    kafka_logger().warning("%s [%s] %s", "FAIL", "rdkafka#producer-1", "broker down")
    (event,) = events(stream)
    assert event["event"] == "FAIL [rdkafka#producer-1] broker down"
    assert (event["level"], event["logger"]) == ("warning", "kafka")
    assert "time" in event


def test_warnings_and_tracebacks_are_events_of_one_line(stream: io.StringIO) -> None:
    configure_logs("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    try:
        raise ValueError("broken")  # noqa: TRY301 - made to be logged
    except ValueError:
        structlog.get_logger("x").exception("failed")
    first, second = events(stream)
    assert "UserWarning: old" in str(first["event"])
    assert "ValueError: broken" in str(second["exception"])


def test_configuring_again_replaces_the_first(stream: io.StringIO) -> None:
    configure_logs("info", "json", io.StringIO())
    configure_logs("info", "json", stream)
    structlog.get_logger("x").info("once")
    assert len(events(stream)) == 1


def test_secrets_are_hidden_at_any_depth_and_the_callers_values_stay(stream: io.StringIO) -> None:
    settings = {"sasl.password": "hush", "nested": {"token": "hush", "password": None}, "sasl.username": "me"}
    configure_logs("info", "json", stream)
    structlog.get_logger("x").info("starting", settings=settings, password="hush", url="https://me:hush@host/")
    assert "hush" not in stream.getvalue()
    (event,) = events(stream)
    assert event["settings"] == {
        "sasl.password": "**********",
        "nested": {"token": "**********", "password": None},
        "sasl.username": "me",
    }
    assert event["url"] == "https://**********@host/"
    assert settings["sasl.password"] == "hush"


def test_events_without_secrets_are_unchanged() -> None:
    assert hide_secrets(None, "info", {"event": "x", "rows": 1}) == {"event": "x", "rows": 1}
