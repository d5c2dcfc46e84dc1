"""The report's charts: matplotlib figures as SVG text that takes its colours of text and lines from the page around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter, WeekdayLocator
from matplotlib.figure import Figure
from numpy.typing import NDArray

from demo.evaluation import Errors
from demo.series import HISTORY_DAYS, HORIZON_DAYS, FloatArray, SeriesSet
from demo.worker_process import HistogramSamples
from schemas.svg_chart import BLUE, GREY, INK, ORANGE, STYLE, svg

_STAGES: Final = ("poll", "decode", "queue", "engine", "guard", "encode", "produce", "commit")
_HISTORY_SHOWN_DAYS: Final = 21


def fans(series: SeriesSet, as_of: int, forecasts: FloatArray, chosen: Sequence[int]) -> str:
    """What was sold against the forecast made at `as_of`, one panel per chosen series.

    forecasts: float32[series, 14, 3], quantiles 0.1, 0.5, 0.9. chosen: indices of series, of which at most six are drawn.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 5.6), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).flat
        for panel, index in zip(panels, chosen, strict=False):
            _fan(panel, series, as_of, forecasts[index], index)
        for panel in list(figure.axes)[len(chosen) :]:
            panel.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        date = np.datetime64(as_of, "D")
        return svg(figure, f"Forecasts made on {date} for {len(chosen)} series, P10 to P90, and what was sold")


def error_by_day_ahead(errors: Sequence[Errors]) -> str:
    """WAPE of each forecaster for day 1 … 14."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.1, 3.0), layout="constrained")
        panel = figure.subplots()
        for entry, colour, marker in zip(errors, (BLUE, ORANGE, GREY), ("o", "s", "^"), strict=False):
            days = range(1, len(entry.by_day_ahead) + 1)
            panel.plot(days, entry.by_day_ahead, marker=marker, markersize=4, color=colour, label=entry.name)
        panel.set(xlabel="days ahead", ylabel="WAPE", ylim=(0, None), xticks=range(1, HORIZON_DAYS + 1))
        figure.legend(loc="outside lower center", ncols=3)
        return svg(figure, "Error by day ahead of the model and of both baselines")


def batch_sizes(histogram: HistogramSamples) -> str:
    """How many batches fell between the bounds of the worker's histogram."""
    filled = np.flatnonzero(histogram.counts)
    first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, 0)
    shown = slice(max(first - 1, 0), last + 2)
    labels = _bound_labels(histogram.bounds)[shown]
    return _bars(histogram.counts[shown], labels, "rows per batch", "batches", "Batch sizes")


def stage_times(stages: Mapping[str, HistogramSamples]) -> str:
    """Seconds spent in each stage over the whole run, and the mean of one pass."""
    names = [name for name in _STAGES if name in stages] + sorted(set(stages) - set(_STAGES))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.1, 3.0), layout="constrained")
        panel = figure.subplots()
        totals = [stages[name].total for name in names]
        bars = panel.barh(names, totals, color=BLUE)
        means = [f"{1000 * stages[n].total / stages[n].count:.1f} ms each" if stages[n].count else "-" for n in names]
        panel.bar_label(bars, means, padding=4)
        panel.invert_yaxis()
        panel.margins(x=0.3)
        panel.set(xlabel="seconds in all (queue: waiting of each batch's oldest row)")
        panel.grid(visible=False, axis="y")
        return svg(figure, "Seconds by stage of the worker")


def _fan(panel: Axes, series: SeriesSet, as_of: int, forecast: FloatArray, index: int) -> None:
    end = as_of - int(series.dates[0]) + 1
    shown = slice(end - min(_HISTORY_SHOWN_DAYS, HISTORY_DAYS), end + HORIZON_DAYS)
    days = _days(series.dates[shown])
    ahead = _days(series.dates[end : end + HORIZON_DAYS])
    low, middle, high = forecast.T
    panel.fill_between(ahead, low, high, color=BLUE, alpha=0.28, linewidth=0, label="forecast P10-P90")
    panel.plot(ahead, middle, color=BLUE, linewidth=1.8, label="forecast P50")
    panel.plot(days, series.sales[index, shown], color=INK, linewidth=1.0, marker=".", markersize=4, label="sold")
    panel.axvline(float(as_of), color=GREY, linewidth=0.8, linestyle=":")
    panel.set_title(f"{series.store_ids[index]} · {series.sku_ids[index]}", loc="left")
    panel.set_ylim(bottom=0)
    locator = WeekdayLocator(byweekday=0)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_formatter(formatter)


def _bars(values: Sequence[int], labels: Sequence[str], xlabel: str, ylabel: str, title: str) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.1, 3.0), layout="constrained")
        panel = figure.subplots()
        bars = panel.bar(range(len(values)), values, color=BLUE, width=0.85)
        panel.bar_label(bars, [str(value) if value else "" for value in values])
        panel.set_xticks(range(len(values)), labels, rotation=60, ha="right", fontsize=8)
        panel.set(xlabel=xlabel, ylabel=ylabel)
        panel.grid(visible=False, axis="x")
        return svg(figure, title)


def _bound_labels(bounds: Sequence[float]) -> list[str]:
    finite = [f"≤ {bound:g}" for bound in bounds if np.isfinite(bound)]
    return finite + [f"> {bounds[-2]:g}"] * (len(bounds) - len(finite))


def _days(dates: NDArray[np.int32]) -> NDArray[np.float64]:
    """Dates of matplotlib are days since 1970-01-01 too."""
    return dates.astype(np.float64)
