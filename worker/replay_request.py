"""A replay as it was asked for, and the names and settings that follow from it.                                  (pure)"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.replay_book import Arguments
from worker.replay_keys import digest_of, read_keys
from worker.replay_span import Bound, bound_from_text, check_order, partitions_from_text
from worker.settings_model import Settings

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_TOPIC_CHARACTERS: Final = 249


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command. `keys` None: all. `model`: as written, "" for the serving one. `rate_per_s` is for all processes."""

    name: str
    since: Bound
    until: Bound
    partitions: tuple[int, ...] | None
    keys: frozenset[bytes] | None
    model: str
    rate_per_s: float | None
    workers: int
    to_live: bool
    allow_gaps: bool


def request_from(given: argparse.Namespace, settings: Settings, now_ms: int) -> Request:
    """The checked request. Reads the file of keys, and nothing else. Raises `ConfigurationError`."""
    if not _NAME.fullmatch(given.name):
        raise ConfigurationError(
            f"--name: got {given.name[:80]!r}, expected letters, digits and ._- (64 at most), as in a topic's name"
        )
    since, until = bound_from_text(given.since, "--from"), bound_from_text(given.until, "--to")
    check_order(since, until, now_ms)
    if given.rate is not None and not given.rate > 0:
        raise ConfigurationError(f"--rate: got {given.rate:g}, expected more than 0 records per second")
    if given.workers < 1:
        raise ConfigurationError(f"--workers: got {given.workers}, expected at least 1")
    request = Request(
        name=given.name,
        since=since,
        until=until,
        partitions=partitions_from_text(given.partitions),
        keys=None if given.keys is None else read_keys(given.keys, len(settings.wire.key_fields)),
        model=given.model or "",
        rate_per_s=given.rate,
        workers=given.workers,
        to_live=given.to_live,
        allow_gaps=given.allow_gaps,
    )
    longest = max(Names.of(settings, request).topics, key=len)
    if len(longest) > MAX_TOPIC_CHARACTERS:
        raise ConfigurationError(f"--name: makes the topic {longest}, which is too long; choose a shorter one")
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a replay is called on the broker. `group` keeps its progress; nobody joins it."""

    group: str
    forecasts: str
    dead_letters: str

    @classmethod
    def of(cls, settings: Settings, request: Request) -> Names:
        """Dead letters never go to the live ones: they say nothing of how live work is doing."""
        live, suffix = settings.output, f".replay.{request.name}"
        return cls(
            group=f"{settings.input.group_id}{suffix}",
            forecasts=live.topic if request.to_live else f"{live.topic}{suffix}",
            dead_letters=f"{live.dead_letter_topic}{suffix}",
        )

    @property
    def topics(self) -> tuple[str, str]:
        """The two that are written to."""
        return self.forecasts, self.dead_letters


def arguments_of(settings: Settings, request: Request) -> Arguments:
    """What must be the same when the name is used again. The rate may change, and so may `--allow-gaps`."""
    names = Names.of(settings, request)
    return Arguments(
        topic=settings.input.topic,
        since=request.since.text,
        until=request.until.text,
        partitions="" if request.partitions is None else ",".join(map(str, request.partitions)),
        keys=digest_of(request.keys),
        model=request.model,
        target=names.forecasts,
        workers=request.workers,
    )


def replay_settings(settings: Settings, request: Request, model: Path, part: str) -> Settings:
    """The live worker's settings, with what a replay does otherwise.

    Its own group, topics and transactional.id (one for each `part`, so that a second one with the same name fences the
    first); always exactly once; nothing is coalesced, because every event of the span is to have its outcome.
    """
    names = Names.of(settings, request)
    changes: Mapping[str, Mapping[str, object]] = {
        "input": {
            "group_id": names.group,
            "group_instance_id": None,
            "group_protocol": "classic",
            "offset_reset": "fail",
        },
        "output": {"topic": names.forecasts, "dead_letter_topic": names.dead_letters},
        "engine": {"model": model},
        "batching": {"coalesce": False},
        "freshness": {"max_keys": 0},
        "models": {"hold_s": 0.0},  # one version from begin to end
        "delivery": {
            "guarantee": "exactly_once",
            "transactional_id": f"{names.group}.{part}",
            "commit_interval_s": settings.replay.commit_interval_s,
        },
    }
    return settings.model_copy(
        update={section: getattr(settings, section).model_copy(update=values) for section, values in changes.items()}
    )
