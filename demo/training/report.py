"""docs/accuracy.md and its plots, made from the JSON that `accuracy` and `timing` wrote; nothing in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from demo.training.plots import by_horizon_day, by_level
from demo.training.report_text import CLOSING, METHOD, OPENING
from demo.training.timing_text import timing_section

Result = Mapping[str, Any]

TITLES: Final = {"freshretailnet": "FreshRetailNet-50K", "bakery": "Bakery chain"}
LEVELS: Final = {
    "wape_sku_day": "SKU-day",
    "wape_sku_week": "SKU-week",
    "wape_sku_14_days": "SKU-14-days",
    "wape_store_day": "store-day",
    "wape_total_day": "all, day",
    "wape_total_14_days": "all, 14 days",
}
_TARGET: Final = 0.1  # 1 - WAPE >= 90 %
_MUST_BEAT: Final = {
    "wape_sku_day": "WAPE per SKU-day",
    "wape_sku_14_days": "WAPE per SKU-14-days",
    "pinball": "weighted pinball loss",
}


def write(results: Path, docs: Path) -> None:
    """Write `accuracy.md` and `plots/` to `docs` from `results/accuracy-<data>.json` and, if there, `timing-*.json`."""
    files = [results / f"accuracy-{name}.json" for name in TITLES]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]
    plots = docs / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    parts = [OPENING, _verdict(found), METHOD]
    for result in found:
        by_level(result, plots / f"accuracy-{result['data']}-levels.svg")
        by_horizon_day(result, plots / f"accuracy-{result['data']}-days.svg")
        parts.append(_data_section(result))
    parts += [timing_section(results), CLOSING]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    (docs / "accuracy.md").write_text(text, encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> 12.3 %."""
    return f"{100 * value:.{digits}f} %"


def _verdict(found: Sequence[Result]) -> str:
    """What was asked for and whether it is reached, one row each."""
    rows = [row for result in found for row in _checks(result)]
    return "## What is reached\n\n" + table(["data", "asked for", "got", "reached"], rows)


def _checks(result: Result) -> list[list[str]]:
    primary, reports = result["primary"], result["reports"]
    line = reports[primary]["all"]
    title = TITLES[result["data"]]
    rows = []
    for key, name in _MUST_BEAT.items():
        others = {each: reports[each]["all"][key] for each in reports if each not in result["models"]}
        best = min(others, key=lambda each: others[each])
        rows.append(
            [
                title,
                f"{name} below every baseline",
                f"{line[key]:.4f}; best baseline {best} {others[best]:.4f}",
                _yes(line[key] < others[best]),
            ]
        )
    coverage = line["coverage_p10_p90"]
    rows.append([title, "P10-P90 covers 75 to 85 %", percent(coverage), _yes(0.75 <= coverage <= 0.85)])
    rows.append([title, "bias within 3 %", percent(line["bias"]), _yes(abs(line["bias"]) <= 0.03)])
    for kind, limit in (("fp16", 0.01), ("int8", 0.02)):
        change = _change(result, primary, kind)
        rows.append(
            [
                title,
                f"{kind.upper()} within {limit:.0%} of FP32's WAPE",
                f"{100 * change:+.2f} %",
                _yes(abs(change) <= limit),
            ]
        )
    if result["data"] == "bakery":
        for key, limit in (("wape_sku_week", 0.90), ("wape_sku_14_days", 0.90), ("wape_sku_day", 0.82)):
            got = 1.0 - line[key]
            rows.append([title, f"1 - WAPE per {LEVELS[key]} >= {limit:.0%}", percent(got), _yes(got >= limit)])
    return rows


def _yes(value: bool) -> str:  # noqa: FBT001 - a formatter
    return "yes" if value else "**no**"


def _change(result: Result, name: str, kind: str) -> float:
    lines = result["precisions"][name]
    return float(lines[kind]["wape_sku_day"] / lines["fp32"]["wape_sku_day"] - 1.0)


def _data_section(result: Result) -> str:
    primary, data = result["primary"], result["data"]
    period = f"{result['test_first_day']} to {result['test_last_day']}"
    origins = "one origin" if result["origins"] == 1 else f"{result['origins']} origins a week apart"
    return "\n\n".join(
        [
            f"## {TITLES[data]}",
            f"{result['series']:,} series; test days {period}, {origins}, 14 days each. Primary: **{primary}**.",
            _levels_table(result),
            f"![WAPE by level of aggregation](plots/accuracy-{data}-levels.svg)",
            _reached(result),
            "Losses (twice the summed pinball loss over the summed sales; at P50 that is WAPE), bias, and how many days fall between P10 and P90:",
            _losses_table(result),
            "By volume, WAPE per SKU-day (bias): series ranked by their mean sales before the test days.",
            _tops_table(result),
            "By day ahead, WAPE per SKU-day:",
            _days_table(result),
            f"![WAPE by day ahead](plots/accuracy-{data}-days.svg)",
            "By kind of day:",
            _kinds_table(result, primary),
            "### Precisions",
            "The same test days through ONNX Runtime on the CPU. The INT8 graph of the LSTM keeps its recurrence in floating point.",
            _precision_table(result),
            "### Training",
            _training_table(result),
        ]
    )


def _levels_table(result: Result) -> str:
    header = ["WAPE", *LEVELS.values(), "SKU-day in stock"]
    keys = [*LEVELS, "wape_sku_day_in_stock"]
    return table(
        header,
        [
            [_named(result, name), *(f"{each['all'][key]:.4f}" for key in keys)]
            for name, each in result["reports"].items()
        ],
    )


def _reached(result: Result) -> str:
    """At which levels the primary's 1 - WAPE is at least 90 %."""
    line = result["reports"][result["primary"]]["all"]
    reached = [f"{name} ({percent(1 - line[key])})" for key, name in LEVELS.items() if line[key] <= _TARGET]
    missed = [f"{name} ({percent(1 - line[key])})" for key, name in LEVELS.items() if line[key] > _TARGET]
    return f"1 - WAPE of 90 % **is reached** per {', '.join(reached) or 'nothing'}; **it isn't** per {', '.join(missed) or 'nothing'}."


def _losses_table(result: Result) -> str:
    keys = ("pinball_p10", "pinball_p50", "pinball_p90", "pinball")
    header = ["", "P10", "P50", "P90", "mean", "bias", "bias in stock", "P10-P90 covers", "below P10", "above P90"]
    rows = []
    for name, each in result["reports"].items():
        line = each["all"]
        shares = [percent(line[key]) for key in ("bias", "bias_in_stock", "coverage_p10_p90", "below_p10", "above_p90")]
        rows.append([_named(result, name), *(f"{line[key]:.4f}" for key in keys), *shares])
    return table(header, rows)


def _tops_table(result: Result) -> str:
    tops = list(result["reports"][result["primary"]]["top"])
    rows = []
    for name, each in result["reports"].items():
        lines = [each["top"][top] for top in tops] + [each["all"]]
        rows.append(
            [_named(result, name), *(f"{line['wape_sku_day']:.3f} ({100 * line['bias']:+.1f} %)" for line in lines)]
        )
    return table(["", *(f"top {int(top):,}" for top in tops), "all"], rows)


def _days_table(result: Result) -> str:
    rows = [
        [_named(result, name), *(f"{value:.3f}" for value in each["horizon_day"].values())]
        for name, each in result["reports"].items()
    ]
    return table(["day", *(str(day) for day in range(1, 15))], rows)


def _kinds_table(result: Result, primary: str) -> str:
    kinds = list(result["reports"][primary]["kind_of_day"])
    rows = [
        [_named(result, name), *(f"{each['kind_of_day'][kind]:.3f}" for kind in kinds)]
        for name, each in result["reports"].items()
    ]
    return table(["", *kinds], rows)


def _precision_table(result: Result) -> str:
    rows = []
    for name, lines in result["precisions"].items():
        for kind, line in lines.items():
            figures = [f"{line[key]:.4f}" for key in ("wape_sku_day", "wape_sku_14_days", "pinball")]
            change = f"{100 * _change(result, name, kind):+.2f} %"
            rows.append(
                [name, kind.upper(), *figures, change, percent(line["bias"]), percent(line["coverage_p10_p90"])]
            )
    return table(
        ["model", "precision", "SKU-day", "SKU-14-days", "pinball", "WAPE against FP32", "bias", "P10-P90"], rows
    )


def _training_table(result: Result) -> str:
    rows = []
    for name, each in result["training"].items():
        if each is not None:
            valid = each["validation"]
            figures = [f"{valid[key]:.4f}" for key in ("wape_sku_day", "wape_sku_14_days", "pinball")]
            rows.append(
                [
                    name,
                    f"{each['parameters']:,}",
                    str(each["epochs"]),
                    f"{each['seconds']:.0f} s",
                    *figures,
                    f"{each['pytorch_onnx_difference']:.1e}",
                ]
            )
    header = [
        "model",
        "parameters",
        "epochs",
        "on one H200",
        "validation SKU-day",
        "SKU-14-days",
        "pinball",
        "PyTorch - ONNX Runtime",
    ]
    return table(header, rows)


def _named(result: Result, name: str) -> str:
    return f"**{name}**" if name == result["primary"] else name
