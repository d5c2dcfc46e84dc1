"""The tables of docs/guard.md, from bench/results/guard.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.tables import Result

_RULES = {"shift": "shift", "drift": "drift", "weekday_lag": "weekday_lag", "explosion": "explosion"}


def guard_text(result: Result) -> str:
    """False alarms, detection, jumps and cost, as Markdown."""
    return "\n".join([*_alarms(result), "", *_detections(result["detection"]), "", *_rest(result)])


def _alarms(result: Result) -> list[str]:
    where = result["machine"]
    lines = [
        (
            f"{where['cpu']}, {where['cores']} cores. Default settings. In brackets: how near the figure came to its limit at "
            "most, in percent of it."
        ),
        "",
        "| Model | Days | Rows | How the rows were shown | False alarms | " + " | ".join(_RULES) + " | µs per row |",
        "| --- | ---: | ---: | --- | ---: |" + " ---: |" * len(_RULES) + " ---: |",
    ]
    for model, data in result["data"].items():
        for name, stream in data["streams"].items():
            trips, nearest = stream["trips"], stream["nearest"]
            cells = " | ".join(f"{trips.get(rule, 0)} ({_percent(nearest.get(rule))})" for rule in _RULES)
            lines.append(
                f"| {model} | {data['days']} | {data['rows']:,} | {name} | {sum(trips.values())} | {cells} "
                f"| {stream['us_per_row']:.2f} |"
            )
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else "< 0" if share < 0 else f"{share:.0%}"


def _detections(detection: Mapping[str, Any]) -> list[str]:
    lines = [
        "| Model | What is wrong | Found | Rows until then, median | most | By |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for model, cases in detection.items():
        for name, case in cases.items():
            rows = ["-" if case[key] is None else f"{case[key]:,.0f}" for key in ("rows_median", "rows_most")]
            lines.append(
                f"| {model} | {name} | {case['found']} of {case['tries']} | {rows[0]} | {rows[1]} "
                f"| {', '.join(case['rules']) or '-'} |"
            )
    return lines


def _rest(result: Result) -> list[str]:
    jumps = result["jumps"]
    large = result["data"]["freshretailnet-lstm"]["streams"]["in order, batches of 4096"]
    return [
        (
            f"Swaps between the two models of FreshRetailNet-50K: {jumps['trips']} false alarms in {jumps['swaps']} swaps; the jump "
            f"came to {jumps['nearest']:.0%} of its limit at most."
        ),
        "",
        (
            f"Cost with batches of 4,096 rows: {large['us_per_row']:.2f} µs per row for all rules, of which "
            f"{large['us_per_row_single_rules']:.2f} µs for the three rules that need no history."
        ),
    ]
