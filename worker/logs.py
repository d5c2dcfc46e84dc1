"""Structured logs: one event per line on standard error, JSON or text, times in UTC, secrets hidden.

Everything goes one way: the worker's own events (structlog), those of libraries that use `logging`, and librdkafka's,
which confluent-kafka hands to the logger that `kafka_logger` returns.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.redaction import HIDDEN, is_secret, without_userinfo


def configure_logs(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["json", "text"] = "json",  # noqa: A002 - the setting's name
    stream: TextIO | None = None,
) -> None:
    """Send every event of at least `level` to `stream` (None: standard error). Call again to change it."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, timestamp_key="time")
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2"):  # the registry client's: a line for every request
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def kafka_logger() -> logging.Logger:
    """The logger to pass to confluent-kafka's clients (`logger=`). librdkafka's lines then come out like all others."""
    return logging.getLogger("kafka")


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Structlog's processor: hide values whose names say secret, at any depth, and passwords in URLs."""
    _hide(event)
    return event


def _hide(values: MutableMapping[str, object]) -> None:
    for name, value in values.items():
        if value is not None and is_secret(str(name)):
            values[name] = HIDDEN
        elif isinstance(value, dict):
            copied = dict(value)
            _hide(copied)
            values[name] = copied
        elif isinstance(value, str):
            values[name] = without_userinfo(value)
