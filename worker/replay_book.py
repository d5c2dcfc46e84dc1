"""What is remembered of a replay under its name: its arguments, its span and its counts, beside its offsets.    (pure)

A replay's progress is the committed offsets of a group of its own. With each offset Kafka keeps a text, and the two are
replaced together, in the same transaction as the forecasts. That text is a `Page`: what the command was, where the
partition's span ends, which model computes, and what has come of the replay so far. So a name that was used before
tells what it was used for, and a replay that goes on needs nothing but the broker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Final

from worker.errors import ConfigurationError
from worker.records import Span

FORMAT: Final = 2

_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "topic": "input.topic",
        "since": "--from",
        "until": "--to",
        "partitions": "--partitions",
        "keys": "the content of --keys",
        "model": "--model",
        "target": "output.topic or --to-live",
        "workers": "--workers",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What makes one replay another one: its command, as written. `keys`: digest of the key file, "" without one."""

    topic: str
    since: str
    until: str
    partitions: str
    keys: str
    model: str
    target: str
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What has come of the records of a replay (or of one process of it) that are committed, over all its runs.

    Every record is one of: forecast, withdrawn (a tombstone passed on), rejected (a dead letter), left_alone (`--to-live`:
    the live forecast is as fresh, or the key was withdrawn) or not_selected (`--keys`). `put_back` counts fresher forecasts of
    live workers that were written once more, `commits` transactions.
    """

    records: int = 0
    forecasts: int = 0
    withdrawn: int = 0
    rejected: int = 0
    left_alone: int = 0
    not_selected: int = 0
    put_back: int = 0
    commits: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is kept with one partition's offset. `totals` are those of the process that has the partition.

    partitions: all of the replay, as `partitions_text` writes them: each page tells whether others are missing.
    """

    arguments: Arguments
    partitions: str
    span: Span
    version: str
    digest: str
    totals: Totals

    def note(self) -> str:
        """As text. About 600 characters; a broker takes `offset.metadata.max.bytes`, 4096 if nobody changed it."""
        content = {
            "replay": FORMAT,
            "arguments": asdict(self.arguments),
            "partitions": self.partitions,
            "span": [self.span.first_offset, self.span.next_offset],
            "model": [self.version, self.digest],
            "totals": [getattr(self.totals, field.name) for field in fields(Totals)],
        }
        return json.dumps(content, separators=(",", ":"))

    def with_totals(self, totals: Totals) -> Page:
        """The same with newer totals."""
        return replace(self, totals=totals)


def page_from_note(text: str | None, where: str) -> Page:
    """The page that `note` wrote. Raises `ConfigurationError` if it is something else."""
    try:
        content = json.loads(text or "")
        if content["replay"] != FORMAT:
            raise ValueError("of another format")  # noqa: TRY301 - one place turns all that can be wrong into words
        return Page(
            arguments=Arguments(**content["arguments"]),
            partitions=str(content["partitions"]),
            span=Span(*content["span"]),
            version=content["model"][0],
            digest=content["model"][1],
            totals=_totals(content["totals"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigurationError(
            f"{where}: got an offset with the note {(text or '')[:80]!r} ({error}), expected one that a replay wrote; "
            "somebody else uses this group: choose another --name"
        ) from error


def latest_totals(pages: Iterable[Page]) -> Totals:
    """Those of a process: each commit writes all of its totals with the partitions that it moved."""
    return max((page.totals for page in pages), key=lambda totals: (totals.commits, totals.records), default=Totals())


def partitions_text(partitions: Iterable[int]) -> str:
    """Partitions in short, e.g. `0,3-5`: a topic may have thousands, and a page has room for few characters."""
    runs: list[tuple[int, int]] = []
    for partition in sorted(set(partitions)):
        if runs and partition == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], partition)
        else:
            runs.append((partition, partition))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def check_whole(kept: Mapping[int, Page], name: str) -> None:
    """Raise `ConfigurationError` unless the pages are those of all partitions of the replay, of `kept` or none."""
    found = partitions_text(kept)
    for partition, page in sorted(kept.items()):
        if page.partitions != found:
            raise ConfigurationError(
                f"--name {name}: got progress of the partitions {found}, expected {page.partitions}, as partition {partition} "
                "remembers; brokers forget it partition by partition, offsets.retention.minutes after the last commit of each "
                "(7 days by default). Nobody can tell what the others had: choose another --name, or delete the replay's "
                "topics and its group to begin anew under this one"
            )


def check_same(known: Arguments, given: Arguments, name: str) -> None:
    """Raise `ConfigurationError` unless the command is the one that the name stands for."""
    before, now = asdict(known), asdict(given)
    differing = [
        f"{_OPTIONS[field]}: was {before[field] or 'not given'}, now {now[field] or 'not given'}"
        for field in before
        if before[field] != now[field]
    ]
    if differing:
        raise ConfigurationError(
            "\n".join(
                [
                    f"--name {name} was used with other arguments:",
                    *(f"  - {each}" for each in differing),
                    "run the same command to go on with that replay, or choose another name",
                ]
            )
        )


def _totals(numbers: list[int]) -> Totals:
    return Totals(**dict(zip((field.name for field in fields(Totals)), numbers, strict=True)))
