"""The report's charts. Needs matplotlib (extra `tools`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schemas.svg_chart import BLUE, GREY, ORANGE, STYLE, svg

_COLOURS: Final = {"fp32": GREY, "fp16": BLUE, "int8": ORANGE}
_MARKERS: Final = {"fp32": "o", "fp16": "s", "int8": "^"}
_ERRORS: Final = ("wape", "wape_total", "bias")
_SIZE: Final = (5.1, 3.0)

Measured = Mapping[str, Mapping[str, Any]]
"""Precision -> a `measure.Measurement` as JSON has it."""


def latency_chart(measured: Measured, where: str) -> str:
    """Median (solid) and 99th percentile (dotted) in milliseconds by batch size."""
    with mpl.rc_context(STYLE):
        figure, axes = _by_rows("ms")
        for name, each in measured.items():
            rows = [point["rows"] for point in each["points"]]
            _line(axes, rows, [1000 * point["median_s"] for point in each["points"]], name)
            axes.plot(rows, [1000 * point["p99_s"] for point in each["points"]], color=_COLOURS[name], linestyle=":")
        axes.set_yscale("log")
        figure.legend(loc="outside lower center", ncols=len(measured))
        return svg(figure, f"Latency {where}: median and, dotted, 99th percentile")


def throughput_chart(measured: Measured, where: str) -> str:
    """Thousand rows per second by batch size."""
    with mpl.rc_context(STYLE):
        figure, axes = _by_rows("thousand rows/s")
        for name, each in measured.items():
            rows = [point["rows"] for point in each["points"]]
            _line(axes, rows, [point["rows_per_s"] / 1000 for point in each["points"]], name)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=len(measured))
        return svg(figure, f"Throughput {where}")


def bars(values: Mapping[str, float], unit: str, title: str) -> str:
    """One bar for each precision."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        drawn = axes.bar(list(values), list(values.values()), color=[_COLOURS[name] for name in values], width=0.6)
        axes.bar_label(drawn, [f"{value:,.1f}" for value in values.values()])
        axes.set(ylabel=unit)
        axes.grid(visible=False, axis="x")
        return svg(figure, title)


def accuracy_chart(accuracy: Mapping[str, Mapping[str, Any]]) -> str:
    """WAPE per day and per total, and bias, side by side for each precision."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        width = 0.8 / max(len(accuracy), 1)
        for place, (name, each) in enumerate(accuracy.items()):
            left = [group + (place - (len(accuracy) - 1) / 2) * width for group in range(len(_ERRORS))]
            axes.bar(left, [each[error] for error in _ERRORS], width, color=_COLOURS[name], label=name)
        axes.set_xticks(range(len(_ERRORS)), ["WAPE per day", "WAPE per total", "bias"])
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside lower center", ncols=max(len(accuracy), 1))
        return svg(figure, "Accuracy per precision")


def _by_rows(unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="rows per batch", ylabel=unit)
    axes.set_xscale("log", base=2)
    return figure, axes


def _line(axes: Axes, rows: list[int], values: list[float], name: str) -> None:
    axes.plot(rows, values, color=_COLOURS[name], marker=_MARKERS[name], markersize=4, label=name)
