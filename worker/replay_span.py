"""Which records a replay covers: bounds as they are written, and offsets per partition that they come to.       (pure)

A span is fixed when a replay starts: for each partition from its first offset up to, and without, its end. Both are
places on the log, not counts: transaction markers, aborted records and what compaction removed take offsets too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from worker.errors import ConfigurationError
from worker.records import Span

_OFFSET: Final = re.compile(r"offset:(\d{1,18})")
_PARTITIONS: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_MAX_PARTITIONS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a span, as written. `value`: the offset, or milliseconds since 1970; 0 for `earliest` and `latest`."""

    kind: Literal["earliest", "latest", "offset", "time"]
    value: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What the broker says of one partition.

    low: the oldest offset that is left. stable_end: the end of what is decided (the last stable offset): behind it only
    records of open transactions. since, until: offset and timestamp (ms) of the first record at or after the bounds that
    are times; None if there is no such record, or the bound is no time.
    """

    low: int
    stable_end: int
    since: tuple[int, int] | None = None
    until: tuple[int, int] | None = None


def bound_from_text(text: str, option: str) -> Bound:
    """A bound from the command line. Raises `ConfigurationError`."""
    if text == "earliest":
        return Bound("earliest", 0, text)
    if text == "latest":
        return Bound("latest", 0, text)
    if found := _OFFSET.fullmatch(text):
        return Bound("offset", int(found[1]), text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        got = f"{text!r}, a time without a zone" if moment else repr(text)
        raise ConfigurationError(
            f"{option}: got {got}, expected a time with its zone (2026-11-01T00:00:00Z), offset:N, earliest or latest"
        )
    return Bound("time", int(moment.astimezone(UTC).timestamp() * 1000), text)


def partitions_from_text(text: str | None) -> tuple[int, ...] | None:
    """`0,3-5` as numbers, ascending; None (all of them) for None. Raises `ConfigurationError`."""
    if text is None:
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        found = _PARTITIONS.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last - first >= _MAX_PARTITIONS:
            raise ConfigurationError(f"--partitions: got {part.strip()!r}, expected numbers and ranges such as 0,3-5")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


def check_order(since: Bound, until: Bound, now_ms: int) -> None:
    """Refuse what can be seen without asking a broker: a span that runs backwards, or into the future."""
    same = since.kind == until.kind and since.kind in {"offset", "time"}
    backwards = (same and since.value >= until.value) or since.kind == "latest" or until.kind == "earliest"
    if backwards:
        raise ConfigurationError(
            f"--from {since.text} --to {until.text}: got a start that isn't before the end, expected an earlier one; "
            "--to is the first moment (or offset) that isn't replayed any more"
        )
    if until.kind == "time" and until.value > now_ms:
        raise ConfigurationError(
            f"--to {until.text}: got a time in the future, expected one that has passed, because the end is fixed at the "
            "start; use latest for all there is now"
        )


def spans_from_edges(edges: Mapping[int, Edges], since: Bound, until: Bound, *, allow_gaps: bool) -> Mapping[int, Span]:
    """Partition -> its span. Raises `ConfigurationError` with every partition whose span isn't (all) there."""
    problems: list[str] = []
    spans: dict[int, Span] = {}
    for partition, edge in sorted(edges.items()):
        first, end = _first(edge, since), _end(edge, until)
        problems += _problems(partition, edge, since, until, first, end, allow_gaps=allow_gaps)
        first = max(first, edge.low)
        spans[partition] = Span(first, max(first, end))
    if problems:
        raise ConfigurationError("\n".join(["the span isn't on the topic:", *(f"  - {each}" for each in problems)]))
    return spans


def shares(partitions: Sequence[int], workers: int) -> Sequence[tuple[int, ...]]:
    """The partitions of each of `workers` processes: disjoint, together all of them, as even as can be."""
    ordered = sorted(partitions)
    return [tuple(ordered[number::workers]) for number in range(workers)]


def utc(timestamp_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _first(edge: Edges, since: Bound) -> int:
    if since.kind == "offset":
        return since.value
    if since.kind == "time":
        return edge.stable_end if edge.since is None else min(edge.since[0], edge.stable_end)
    return edge.low


def _end(edge: Edges, until: Bound) -> int:
    if until.kind == "offset":
        return until.value
    if until.kind == "time" and edge.until is not None:
        return min(edge.until[0], edge.stable_end)
    return edge.stable_end


def _problems(
    partition: int, edge: Edges, since: Bound, until: Bound, first: int, end: int, *, allow_gaps: bool
) -> Iterator[str]:
    where = f"partition {partition}"
    if first > edge.stable_end or end > edge.stable_end:
        option = f"--from {since.text}" if first > edge.stable_end else f"--to {until.text}"
        yield (
            f"{where}: {option}: got an offset behind the end, expected at most {edge.stable_end}; choose a smaller one, or "
            "name the partitions that reach so far with --partitions"
        )
    elif first > end:
        yield f"{where}: --from {since.text} is offset {first}, --to {until.text} offset {end}: the start is behind the end"
    if allow_gaps:
        return
    remedy = "start later, or say --allow-gaps to replay what is left"
    if since.kind == "offset" and first < edge.low:
        yield f"{where}: --from {since.text}: the oldest record left is at offset {edge.low}; {remedy}"
    elif since.kind == "time" and edge.since is None and 0 < edge.low >= edge.stable_end:
        yield (
            f"{where}: --from {since.text}: no record is left of those before offset {edge.stable_end}, and nobody can tell of "
            f"what time they were; leave it out with --partitions, or say --allow-gaps to replay what is left"
        )
    elif since.kind == "time" and edge.low > 0 and edge.since is not None:
        offset, timestamp_ms = edge.since
        if offset <= edge.low and timestamp_ms > since.value:
            yield (
                f"{where}: --from {since.text}: the oldest record left, offset {offset}, is of {utc(timestamp_ms)}, and "
                f"older ones were deleted; {remedy}"
            )
