"""How a replay shows itself: a bar for people, a line in the log else; a summary for both, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worker.deadline import Clock
from worker.replay import Standing
from worker.replay_book import Totals
from worker.replay_parts import Ended
from worker.replay_plan import Plan

log = structlog.get_logger(__name__)

LOG_EVERY_S: Final = 10.0

Tell = Callable[[Sequence[Standing]], None]


@contextmanager
def shown(plan: Plan, clock: Clock) -> Iterator[Tell]:
    """Takes standings and shows them: a bar on a terminal, else a line every 10 seconds."""
    total = sum(page.span.next_offset - page.span.first_offset for page in plan.pages.values())
    if not sys.stderr.isatty():
        yield _Lines(total, clock)
        return
    columns = (
        TextColumn("replay {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} records/s{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(plan.request.name, total=total, rate=0.0, note="")

        def tell(standings: Sequence[Standing]) -> None:
            if any(standing.seconds for standing in standings):
                note = ", paused: live work comes first" if any(standing.paused for standing in standings) else ""
                left = sum(standing.left for standing in standings)
                progress.update(task, completed=total - left, rate=rate_per_s(standings), note=note)

        yield tell


class _Lines:
    """Progress in the log."""

    def __init__(self, total: int, clock: Clock) -> None:
        self._total = total
        self._clock = clock
        self._due_s = clock() + LOG_EVERY_S

    def __call__(self, standings: Sequence[Standing]) -> None:
        if self._clock() < self._due_s:
            return
        self._due_s = self._clock() + LOG_EVERY_S
        rate, left = rate_per_s(standings), sum(standing.left for standing in standings)
        log.info(
            "replaying",
            offsets_left=left,
            offsets=self._total,
            records_per_s=round(rate),
            left_s=round(left / rate) if rate else None,
            paused=any(standing.paused for standing in standings),
        )


def rate_per_s(standings: Sequence[Standing]) -> float:
    """Records per second of all processes, since each one's first record."""
    return sum(standing.read / standing.seconds for standing in standings if standing.seconds > 0)


def summary(plan: Plan, ended: Sequence[Ended]) -> Mapping[str, object]:
    """What came of it, as JSON. `totals` are of all runs under the name, `run` of this one."""
    totals = Totals()
    for each in ended:
        totals = totals.plus(each.standing.totals)
    page = next(iter(plan.pages.values()))
    standings = [each.standing for each in ended]
    return {
        "name": plan.request.name,
        "finished": all(each.exit_code == 0 and each.standing.done for each in ended),
        "resumed": plan.resumed,
        "forecasts_topic": plan.names.forecasts,
        "dead_letters_topic": plan.names.dead_letters,
        "model": {"version": page.version, "sha256": page.digest},
        "spans": {str(p): [page.span.first_offset, page.span.next_offset] for p, page in sorted(plan.pages.items())},
        "totals": asdict(totals),
        "run": {
            "records": sum(standing.read for standing in standings),
            "seconds": round(max((standing.seconds for standing in standings), default=0.0), 3),
            "records_per_s": round(rate_per_s(standings), 1),
            "paused_s": round(sum(standing.paused_s for standing in standings), 3),
        },
        "workers": [{"part": each.part, "exit_code": each.exit_code, "done": each.standing.done} for each in ended],
    }


def lines_of(content: Mapping[str, object]) -> Iterator[str]:
    """The summary for a person."""
    totals, run = content["totals"], content["run"]
    assert isinstance(totals, dict)  # noqa: S101 - made by `summary`
    assert isinstance(run, dict)  # noqa: S101 - likewise
    state = "finished" if content["finished"] else "stopped before its end; run the same command to go on"
    yield f"replay {content['name']}: {state}"
    yield "in all:   " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in totals.items())
    yield f"this run: {run['records']:,} records read in {run['seconds']:g} s, {run['records_per_s']:,.0f}/s"
    yield f"forecasts are in {content['forecasts_topic']}, dead letters in {content['dead_letters_topic']}"
