"""The demo's report: one HTML file that needs nothing else, neither scripts nor anything from the network."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import numpy as np
from numpy.typing import NDArray

from demo import backtest_report, charts
from demo.backtest import Backtest
from demo.evaluation import Errors, Outcomes
from demo.series import HORIZON_DAYS, FloatArray, SeriesSet
from demo.worker_process import HistogramSamples
from schemas.html_page import figure, page, section, table

_PANELS: Final = 6
_PACKAGES: Final = ("confluent-kafka", "fastavro", "numpy", "onnxruntime")

SOURCES: Final[Mapping[str, str]] = {
    "bakery": "Daily demand of a bakery chain, from the source archive of the Python package ddop 0.7.6.",
    "freshretailnet": "FreshRetailNet-50K by Dingdong-Inc (Hugging Face), CC BY 4.0; giveaways dropped, promotions as planned.",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemoResult:
    """All that a run of the demo found out.

    forecasts: float32[dates, series, 14, 3], NaN where there is none. seconds: from the first event sent to the last
    outcome read. batch_rows, stages: the worker's own metrics, empty if it had none. backtest: of ordering, where the goods
    are perishable and sold the next day. proposals: order proposals on the topic, if any were made.
    """

    series: SeriesSet
    as_of_dates: Sequence[int]
    forecasts: FloatArray
    outcomes: Outcomes
    errors: Sequence[Errors]
    seconds: float
    model: str
    batch_rows: HistogramSamples | None
    stages: Mapping[str, HistogramSamples]
    backtest: Backtest | None = None
    proposals: int | None = None

    @property
    def rows_per_s(self) -> float:
        """Input records per second, sending and reading back included."""
        return self.outcomes.inputs / self.seconds if self.seconds > 0 else 0.0


def summary(result: DemoResult) -> list[tuple[str, str]]:
    """The figures of the run: what, and how much."""
    outcomes = result.outcomes
    rows = [
        ("events", f"{outcomes.inputs:,}"),
        ("forecasts", f"{outcomes.forecasts:,}"),
        ("dead letters", f"{outcomes.dead_letters:,}"),
        ("lost", f"{outcomes.lost:,}"),
        ("duplicates", f"{outcomes.duplicates:,}"),
        ("events per second, end to end", f"{result.rows_per_s:,.0f}"),
    ]
    if outcomes.strays:
        rows.append(("outcomes of no event", f"{outcomes.strays:,}"))
    if result.batch_rows is not None and result.batch_rows.count:
        histogram = result.batch_rows
        mean = histogram.total / histogram.count
        rows.append(("batches", f"{histogram.count:,} of {mean:,.0f} rows on average"))
    if result.proposals is not None:
        rows.append(("order proposals", f"{result.proposals:,}"))
    return rows


def judged(result: DemoResult) -> str:
    """Which days the accuracy is about, in one sentence."""
    first, last = _day(result.as_of_dates[0] + 1), _day(result.as_of_dates[-1] + HORIZON_DAYS)
    return f"Judged on {first} to {last}, days after the model's training; docs/accuracy.md says how it was chosen."


def reasons(outcomes: Outcomes) -> str:
    """Dead letters by reason, as text."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(outcomes.reasons.items())) or "none"


def environment() -> list[tuple[str, str]]:
    """Machine and versions."""
    rows = [("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")]
    rows.append(("Python", platform.python_version()))
    for package in _PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "unknown"))
    return rows


def render(result: DemoResult) -> str:
    """The report as HTML text."""
    figures = [("wide", *fan) for fan in _fans(result)]
    figures.append(("", "Error by day ahead", charts.error_by_day_ahead(result.errors)))
    if result.batch_rows is not None:
        figures.append(("", "Batch sizes", charts.batch_sizes(result.batch_rows)))
    if result.stages:
        figures.append(("", "Time by stage", charts.stage_times(result.stages)))
    body = [
        "<h1>Forecast worker demo</h1>",
        f"<p>{escape(_headline(result))}</p>",
        _verdict(result.outcomes),
        '<div class="grid">',
        section("Run", table(("", ""), summary(result), head=False)),
        section("Accuracy of the next 14 days", _accuracy(result) + _reasons(result.outcomes)),
        *(figure(*each) for each in figures),
        *_ordering(result.backtest),
        section("Machine and versions", table(("", ""), environment(), head=False)),
        "</div>",
        f"<footer>Data: {escape(SOURCES.get(result.series.name, result.series.name))}</footer>",
    ]
    return page("Forecast worker demo", body)


def panels_of(result: DemoResult) -> tuple[list[int], list[int]]:
    """Dates (a middle one and the newest) and up to six series, from large to small, of different stores and products.

    All of them have forecasts; both are empty if there are none.
    """
    values = result.forecasts
    known: NDArray[np.bool_] = np.isfinite(values.sum(axis=(2, 3)))
    dates = np.flatnonzero(np.any(known, axis=1))
    if len(dates) == 0:
        return [], []
    shown = sorted({int(dates[len(dates) // 2]), int(dates[-1])})
    series = result.series
    ranked = np.flatnonzero(np.all(known[shown], axis=0))
    ranked = ranked[np.argsort(-series.sales[ranked].mean(axis=1), kind="stable")]
    chosen: list[int] = []
    for part in np.array_split(ranked[: max(len(ranked) * 4 // 5, 1)], _PANELS):
        taken_skus = [series.sku_ids[i] for i in chosen]
        taken_stores = {series.store_ids[i] for i in chosen}
        if len(part):
            choice = min(part, key=lambda i: (taken_skus.count(series.sku_ids[i]), series.store_ids[i] in taken_stores))
            chosen.append(int(choice))
    return shown, chosen


def _fans(result: DemoResult) -> Iterator[tuple[str, str]]:
    dates, chosen = panels_of(result)
    for date in dates if chosen else ():
        as_of = result.as_of_dates[date]
        title = f"Forecast on {_day(as_of)} and what was sold"
        yield title, charts.fans(result.series, as_of, result.forecasts[date], chosen)


def _reasons(outcomes: Outcomes) -> str:
    return f"<h2>Dead letters by reason</h2><p>{escape(reasons(outcomes))}</p>"


def _headline(result: DemoResult) -> str:
    first, last = _day(result.as_of_dates[0]), _day(result.as_of_dates[-1])
    return (
        f"{len(result.series):,} series (stores x products), one feature event for each and each of {len(result.as_of_dates)} "
        f"days, {first} to {last}, through a Kafka broker and the worker with model {result.model}, "
        "and the forecasts read back from the topic."
    )


def _verdict(outcomes: Outcomes) -> str:
    if outcomes.exactly_once:
        return '<p class="verdict good">Every event has exactly one outcome: none lost, none twice.</p>'
    text = f"{outcomes.lost} lost, {outcomes.duplicates} duplicates, {outcomes.strays} outcomes of no event."
    return f'<p class="verdict bad">Not exactly once: {text}</p>'


def _accuracy(result: DemoResult) -> str:
    rows = [(entry.name, f"{entry.daily:.3f}", f"{entry.total:.3f}") for entry in result.errors]
    note = f"<p>WAPE: sum of absolute errors / sum of sales; less is better. {escape(judged(result))}</p>"
    return table(("", "WAPE per day", "WAPE per 14-day total"), rows) + note


def _day(as_of: int) -> str:
    return str(np.datetime64(int(as_of), "D"))


def _ordering(backtest: Backtest | None) -> list[str]:
    if backtest is None:
        return []
    notes = "".join(f"<p>{escape(note)}</p>" for note in backtest_report.notes(backtest))
    results = table(backtest_report.COLUMNS, backtest_report.rows(backtest))
    return [
        f'<section class="wide"><h2>{backtest_report.TITLE}</h2>{results}{notes}</section>',
        figure("wide", "Waste against demand served", backtest_report.chart(backtest)),
    ]
