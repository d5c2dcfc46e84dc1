"""The backtest of ordering as rows of a table, sentences and a chart: the same on the terminal and in the report."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from demo.backtest import CRITICAL_RATIO, Backtest
from schemas.svg_chart import BLUE, GREY, INK, ORANGE, STYLE, svg

TITLE = "Ordering by the forecasts"
COLUMNS = ("", "served", "not sold out", "waste", "lost", "wasted", "cost")


def rows(backtest: Backtest) -> list[tuple[str, ...]]:
    """One row per policy, in the order of `COLUMNS`."""
    return [
        (
            each.name,
            f"{each.served:.1%}",
            f"{each.days_covered:.1%}",
            f"{each.waste:.1%}",
            f"{each.lost_units:,.0f}",
            f"{each.wasted_units:,.0f}",
            f"{each.cost:.3f}",
        )
        for each in backtest.table
    ]


def notes(backtest: Backtest) -> list[str]:
    """What the columns mean, how it was ordered, and what the data can't say."""
    first, last = np.datetime64(backtest.first_day, "D"), np.datetime64(backtest.last_day, "D")
    return [
        (
            f"{first} to {last}, {backtest.series} series, {backtest.demand_units:,.0f} units sold. Baked to order for one day, what "
            f"is left is waste. All policies order the demand's quantile {CRITICAL_RATIO:g} (a lost sale costs "
            f"{CRITICAL_RATIO / (1 - CRITICAL_RATIO):.0f} times a wasted unit), by the forecast of the evening before; on the last "
            f"{backtest.days_after} days by the newest there is, which gets older."
        ),
        (
            "Served: share of the demand. Not sold out: share of the days with sales. Waste: share of what was ordered. Lost and "
            "wasted: units. Cost: what a newsvendor minimises, "
            f"({CRITICAL_RATIO:g} x lost + {1 - CRITICAL_RATIO:.1f} x wasted) / demand."
        ),
        (
            "What was sold stands for the demand. Where a shop sold out it was higher, nobody knows how much: lost sales are "
            "understated for all."
        ),
    ]


def chart(backtest: Backtest) -> str:
    """Waste against demand served, as the critical ratio goes from 0.1 to 0.98; the table's ratio is marked."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        panel = figure.subplots()
        styles = zip(backtest.curves.items(), (BLUE, ORANGE, GREY), ("o", "s", "^"), strict=False)
        for (name, results), colour, marker in styles:
            served, waste = [100 * each.served for each in results], [100 * each.waste for each in results]
            panel.plot(served, waste, color=colour, marker=marker, markersize=4, label=name)
            marked = next(each for each in results if each.ratio == CRITICAL_RATIO)
            panel.plot(100 * marked.served, 100 * marked.waste, color=colour, marker=marker, markersize=9)
        panel.plot(100, 0, color=INK, marker="*", markersize=10, linestyle="none", label="perfect foresight")
        panel.set(xlabel="demand served, %", ylabel="waste, % of what was ordered", ylim=(-2, None))
        figure.legend(loc="outside lower center", ncols=4)
        return svg(figure, "Waste against demand served, by policy, as the critical ratio varies")
