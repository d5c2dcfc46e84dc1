"""The plots of docs/accuracy.md."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_LEVELS: Final = {
    "wape_sku_day": "SKU-day",
    "wape_sku_week": "SKU-week",
    "wape_sku_14_days": "SKU-14-days",
    "wape_store_day": "store-day",
    "wape_total_14_days": "all, 14 days",
}
_BASELINE_COLOURS: Final = ("#d9d9d9", "#bdbdbd", "#969696", "#737373", "#525252")
_MODEL_COLOURS: Final = ("#08519c", "#4292c6", "#9ecae1")


def by_level(result: Mapping[str, Any], path: Path) -> None:
    """WAPE of every forecaster by level of aggregation, as bars; the 10 % that 1 - WAPE = 90 % means is a line."""
    figure, axes = _canvas()
    reports = result["reports"]
    width = 0.8 / len(reports)
    for place, (name, colour) in enumerate(_colours(result).items()):
        heights = [reports[name]["all"][key] for key in _LEVELS]
        axes.bar(
            [level + (place - len(reports) / 2) * width for level in range(len(_LEVELS))],
            heights,
            width,
            label=name,
            color=colour,
        )
    axes.axhline(0.1, color="#cb181d", linewidth=1, linestyle="--")
    axes.set_xticks(range(len(_LEVELS)), _LEVELS.values())
    axes.set_ylabel("WAPE")
    _finish(figure, axes, path)


def by_horizon_day(result: Mapping[str, Any], path: Path) -> None:
    """WAPE per SKU-day of every forecaster by day ahead."""
    figure, axes = _canvas()
    for name, colour in _colours(result).items():
        days = result["reports"][name]["horizon_day"]
        axes.plot([int(day) for day in days], list(days.values()), label=name, color=colour, marker=".")
    axes.set_xlabel("day ahead")
    axes.set_ylabel("WAPE per SKU-day")
    _finish(figure, axes, path)


def _colours(result: Mapping[str, Any]) -> dict[str, str]:
    models = list(result["models"])
    baselines = [name for name in result["reports"] if name not in models]
    return dict(zip(models, _MODEL_COLOURS, strict=False)) | dict(zip(baselines, _BASELINE_COLOURS, strict=False))


def _canvas() -> tuple[Any, Any]:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "accuracy"  # the same numbers give the same file
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 4))
    return figure, axes


def _finish(figure: Any, axes: Any, path: Path) -> None:  # noqa: ANN401 - an untyped library
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    importlib.import_module("matplotlib.pyplot").close(figure)
