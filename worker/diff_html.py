"""A comparison of forecasts as one HTML file with its plots inside. Needs matplotlib, from the extra `tools`."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.diff_report import Report, text
from worker.errors import ConfigurationError
from worker.forecast_diff import Change, Comparison, median_index
from worker.forecast_table import ForecastTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[Axes], None]

_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1.5rem 0; background: #fff; } figcaption { padding: 0 .5rem .5rem; color: #333; }
svg { width: 100%; height: auto; } pre { overflow-x: auto; font-size: .8rem; }"""
_BEFORE, _AFTER = "#6b7280", "#0f766e"
_SIZE = (9.0, 3.6)


def require_matplotlib() -> None:
    """Raise `ConfigurationError` if plots can't be drawn, before anything is read."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra that only this needs
    except ImportError as error:
        raise ConfigurationError(
            "--html needs matplotlib, which isn't installed; install forecast-worker[tools], or use --json"
        ) from error


def page(report: Report, before: ForecastTable, after: ForecastTable) -> str:
    """The whole file: tables and plots, nothing from elsewhere. The tables must be those that were compared."""
    title = html.escape(f"{report.before.name} and {report.after.name}")
    figures = [
        (
            "Totals over all days, before and after: how many forecasts lie where (darker: more).",
            _totals(before, after),
        ),
        ("Change of the total relative to before, as a share of forecasts.", _relative(before, after)),
        ("Mean forecast per day, with the mean of the lowest and the highest quantile.", _days(before, after)),
        ("Mean width (highest less lowest quantile) per day.", _widths(report.comparison)),
    ]
    if report.comparison.accuracy is not None:
        figures.append(("WAPE per day of the horizon.", _wape(report.comparison)))
    drawn = "\n".join(
        f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>" for caption, svg in figures
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Forecasts compared: {title}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Forecasts compared</h1><p>{title}</p>\n{drawn}\n<pre>{html.escape(text(report))}</pre></body></html>\n"
    )


def _totals(before: ForecastTable, after: ForecastTable) -> str:
    old, new = _total(before), _total(after)
    top = float(max(old.max(initial=1.0), new.max(initial=1.0)))

    def draw(axes: Axes) -> None:
        # Cells, not points: the file's size doesn't grow with the forecasts.
        axes.hexbin(
            old, new, gridsize=60, bins="log", mincnt=1, extent=(0, top, 0, top), cmap="viridis_r", linewidths=0.2
        )
        axes.plot([0, top], [0, top], color="#999", linewidth=0.8)
        axes.set_xlabel("before, units")
        axes.set_ylabel("after, units")

    return _svg(draw, "totals")


def _relative(before: ForecastTable, after: ForecastTable) -> str:
    old, new = _total(before), _total(after)
    is_there = old > 0
    moved = np.clip((new[is_there] - old[is_there]) / old[is_there], -1.0, 1.0)

    def draw(axes: Axes) -> None:
        axes.hist(
            100 * moved, bins=80, range=(-100, 100), weights=np.full(len(moved), 100 / max(1, len(moved))), color=_AFTER
        )
        axes.set_xlabel("change, % (beyond 100 % counts as 100 %)")
        axes.set_ylabel("% of forecasts")

    return _svg(draw, "relative")


def _days(before: ForecastTable, after: ForecastTable) -> str:
    def draw(axes: Axes) -> None:
        for table, colour, name in ((before, _BEFORE, "before"), (after, _AFTER, "after")):
            days = np.arange(1, table.values.shape[1] + 1)
            means = table.values.mean(axis=0, dtype=np.float64) if len(table) else np.zeros(table.values.shape[1:])
            axes.plot(days, means[:, median_index(table.levels)], color=colour, label=name)
            axes.fill_between(days, means[:, 0], means[:, -1], color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("day")
        axes.set_ylabel("units")
        axes.legend()

    return _svg(draw, "days")


def _widths(comparison: Comparison) -> str:
    def draw(axes: Axes) -> None:
        _two_lines(axes, *_means(comparison.width_by_day))
        axes.set_ylabel("units")

    return _svg(draw, "widths")


def _wape(comparison: Comparison) -> str:
    def draw(axes: Axes) -> None:
        if comparison.accuracy is not None:
            _two_lines(axes, comparison.accuracy[0].by_day, comparison.accuracy[1].by_day)
        axes.set_ylabel("WAPE")

    return _svg(draw, "wape")


def _means(changes: Sequence[Change]) -> tuple[list[float], list[float]]:
    return [change.mean_before for change in changes], [change.mean_after for change in changes]


def _two_lines(axes: Axes, before: Sequence[float], after: Sequence[float]) -> None:
    days = range(1, len(before) + 1)
    axes.plot(days, before, color=_BEFORE, label="before")
    axes.plot(days, after, color=_AFTER, label="after")
    axes.set_xlabel("day")
    axes.set_ylim(bottom=0)
    axes.legend()


def _total(table: ForecastTable) -> NDArray[np.float64]:
    return np.asarray(table.values[..., median_index(table.levels)].sum(axis=1, dtype=np.float64))


def _svg(draw: Draw, name: str) -> str:
    """One figure as SVG that can stand in a page beside others: ids of its own, no XML head, no link elsewhere."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra that only this needs
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
