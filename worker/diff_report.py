"""A comparison of forecasts for people (tables) and programs (JSON)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Table

from worker.forecast_diff import Accuracy, Change, Comparison, Mover
from worker.forecast_table import Matching
from worker.moments import text_of

_DAY_MS = 86_400_000
_WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side: its name, the forecasts kept of it, its models with how many forecasts each, and what couldn't be used."""

    name: str
    forecasts: int
    models: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is reported. actual_cells: days of keys that were sold and compared, None without actual sales."""

    before: Side
    after: Side
    matching: Matching
    comparison: Comparison


def text(report: Report) -> str:
    """Tables for a terminal."""
    out = StringIO()
    # Keys and names are data: what looks like rich's markup in them is none.
    console = Console(file=out, width=_WIDTH, markup=False, emoji=False, highlight=False)
    for part in (_sides(report), *_changes(report), *_accuracies(report), _movers(report.comparison.movers)):
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def as_json(report: Report) -> str:
    """Everything as JSON; what isn't a number (nothing to divide by) is null."""
    comparison, matching = report.comparison, report.matching
    content = {
        "before": asdict(report.before),
        "after": asdict(report.after),
        "matched": comparison.forecasts,
        "only_before": matching.only_before,
        "only_after": matching.only_after,
        "other_date": matching.other_date,
        "identical": comparison.identical,
        "days": comparison.days,
        "median_level": comparison.median_level,
        "overall": asdict(comparison.overall),
        "by_level": {f"{level:g}": asdict(change) for level, change in comparison.by_level.items()},
        "by_day": [asdict(change) for change in comparison.by_day],
        "width": asdict(comparison.width),
        "width_by_day": [asdict(change) for change in comparison.width_by_day],
        "movers": [
            {**asdict(mover), "key": key_text(mover.key), "as_of": date_text(mover.as_of), "change": mover.change}
            for mover in comparison.movers
        ],
        "accuracy": None
        if comparison.accuracy is None
        else dict(zip(("before", "after"), map(asdict, comparison.accuracy), strict=True)),
    }
    return json.dumps(_without_nan(content), indent=2, allow_nan=False)


def key_text(key: bytes) -> str:
    """A key for people."""
    return key.decode(errors="backslashreplace")


def date_text(day: int) -> str:
    """The date of a day since 1970."""
    return text_of(day * _DAY_MS).partition("T")[0]


def number(value: float) -> str:
    """Four digits that count; a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:,.4g}"


def percent(value: float) -> str:
    """A share in percent; a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def _sides(report: Report) -> Table:
    table = Table("", "before", "after", box=SIMPLE, title="what was compared", title_justify="left")
    sides = (report.before, report.after)
    table.add_row("topic or model", *(side.name for side in sides))
    table.add_row("forecasts", *(f"{side.forecasts:,}" for side in sides))
    table.add_row("made by", *("\n".join(f"{model}: {n:,}" for model, n in side.models.items()) for side in sides))
    for reason in sorted({reason for side in sides for reason in side.left_out}):
        table.add_row(f"left out: {reason}", *(f"{side.left_out.get(reason, 0):,}" for side in sides))
    matching, comparison = report.matching, report.comparison
    table.add_row("keys that the other lacks", f"{matching.only_before:,}", f"{matching.only_after:,}")
    table.add_row("same key, other as_of", f"{matching.other_date:,}", f"{matching.other_date:,}")
    table.add_row("compared", f"{comparison.forecasts:,}", f"{comparison.forecasts:,}")
    table.add_row("of these, equal in every bit", f"{comparison.identical:,}", f"{comparison.identical:,}")
    return table


def _changes(report: Report) -> list[RenderableType]:
    comparison = report.comparison
    levels = _change_table("changes by quantile", "quantile")
    for level, change in comparison.by_level.items():
        levels.add_row(f"{level:g}", *_change_cells(change))
    levels.add_row("all", *_change_cells(comparison.overall))
    levels.add_row("highest - lowest", *_change_cells(comparison.width))
    days = _change_table(f"changes of quantile {comparison.median_level:g} by day", "day")
    days.add_column("width before", justify="right")
    days.add_column("width after", justify="right")
    both = zip(comparison.by_day, comparison.width_by_day, strict=True)
    for day, (change, width) in enumerate(both, start=1):
        days.add_row(str(day), *_change_cells(change), number(width.mean_before), number(width.mean_after))
    return [levels, days]


def _change_table(title: str, first: str) -> Table:
    table = Table(first, box=SIMPLE, title=title, title_justify="left")
    for heading in ("mean before", "mean after", "mean |change|", "95 % below", "largest", "relative"):
        table.add_column(heading, justify="right")
    return table


def _change_cells(change: Change) -> tuple[str, ...]:
    return (
        number(change.mean_before),
        number(change.mean_after),
        number(change.mean_absolute),
        number(change.p95_absolute),
        number(change.largest_absolute),
        percent(change.relative),
    )


def _accuracies(report: Report) -> list[Table]:
    if report.comparison.accuracy is None:
        return []
    before, after = report.comparison.accuracy
    table = Table(
        "", box=SIMPLE, title=f"accuracy on {before.cells:,} days of keys that were sold", title_justify="left"
    )
    for heading in ("before", "after", "after - before"):
        table.add_column(heading, justify="right")
    for name in ("wape", "bias", "pinball"):
        old, new = getattr(before, name), getattr(after, name)
        table.add_row(name, number(old), number(new), number(new - old))
    for day, (old, new) in enumerate(zip(before.by_day, after.by_day, strict=True), start=1):
        table.add_row(f"wape, day {day}", number(old), number(new), number(new - old))
    return [table]


def _movers(movers: Sequence[Mover]) -> Table:
    table = Table("key", "as_of", box=SIMPLE, title="largest movers, total over all days", title_justify="left")
    for heading in ("before", "after", "change", "relative"):
        table.add_column(heading, justify="right")
    for mover in movers:
        table.add_row(
            key_text(mover.key),
            date_text(mover.as_of),
            number(mover.before),
            number(mover.after),
            number(mover.change),
            percent(mover.relative),
        )
    return table


def accuracy_rows(accuracies: tuple[Accuracy, Accuracy]) -> list[tuple[str, float, float]]:
    """Name, before, after."""
    before, after = accuracies
    return [(name, getattr(before, name), getattr(after, name)) for name in ("wape", "bias", "pinball")]


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return value
