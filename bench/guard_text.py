"""The tables of docs/guard.md, from bench/results/guard.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.guard_cases import CONTROLS, SOUND
from bench.guard_stream import CANARY_DAYS
from bench.tables import Result

_RULES = ("shift", "drift", "weekday_lag", "explosion")
_SWAP_RULES = ("canary", CANARY_DAYS, "jump", "drift", "shift")


_MISSED = (
    "The tries that were missed, beside sound forecasts: the largest figure of each try in percent of its limit (below 0: "
    "forecasts fit their own weekdays best), from the lowest try to the highest. Where the spans overlap, no limit tells the two apart:"
)


def guard_text(result: Result) -> str:
    """False alarms, detection, what is missed and why, and cost, as Markdown."""
    parts = (
        _alarms(result),
        _swaps(result["swaps"]),
        _detections("Wrong from a worker's start on, tries of 8,192 rows", result["detection"]),
        _detections("Wrong from a swap on, after a sound version; tries of 4,096 rows", result["after_swap"]),
        [_MISSED, *_near(result["detection"], _RULES[:3])],
        ["The same after a swap:", *_near(result["after_swap"], ("canary", CANARY_DAYS, "drift"))],
        _errors(result["errors"]),
        _cost(result),
    )
    return "\n\n".join("\n".join(part) for part in parts)


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


def _swaps(swaps: Mapping[str, Any]) -> list[str]:
    lines = [
        "One sound version after the other, both ways (LSTM and TSMixer; LSTM and smoother), and how near it came to an alarm:",
        "",
        "| Data | Swaps | False alarms | " + " | ".join(_SWAP_RULES) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(_SWAP_RULES),
    ]
    for name, each in swaps.items():
        cells = " | ".join(_percent(each["nearest"].get(rule)) for rule in _SWAP_RULES)
        lines.append(f"| {name} | {each['swaps']} | {sum(each['trips'].values())} | {cells} |")
    for name, each in swaps.items():
        all_rows = each["everywhere"]
        lines += [
            "",
            (
                f"The canary's comparison alone, of every 256 rows of {name} in turn: {all_rows['trips']} false alarms in "
                f"{all_rows['comparisons']:,}; the difference came to {all_rows['difference']:.0%} of its limit, the days to "
                f"{all_rows['days']:.0%}."
            ),
        ]
    return lines


def _detections(title: str, detection: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{title}:",
        "",
        "| Model | What is wrong | Found | Rows until then, median | most | By |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for model, cases in detection.items():
        for name in (*(each for each in CONTROLS if each in cases), *(each for each in cases if each not in CONTROLS)):
            case = cases[name]
            rows = ["-" if case[key] is None else f"{case[key]:,.0f}" for key in ("rows_median", "rows_most")]
            rules = ", ".join(f"{rule} {count}" for rule, count in case["rules"].items()) or "-"
            lines.append(f"| {model} | {name} | {case['found']} of {case['tries']} | {rows[0]} | {rows[1]} | {rules} |")
    return lines


def _near(detection: Mapping[str, Any], rules: Sequence[str]) -> list[str]:
    """The figures of what is missed beside those of sound forecasts."""
    lines = [
        "",
        "| Model | What is wrong | Missed | " + " | ".join(rules) + " |",
        "| --- | --- | ---: |" + " ---: |" * len(rules),
    ]
    for model, cases in detection.items():
        missed = [name for name, case in cases.items() if case["found"] < case["tries"] and name not in CONTROLS]
        for name in (SOUND, *missed) if missed else ():
            case = cases[name]
            spans = " | ".join(_span(case["missed"].get(rule)) for rule in rules)
            lines.append(f"| {model} | {name} | {case['tries'] - case['found']} of {case['tries']} | {spans} |")
    return lines


def _errors(errors: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    lines = [
        (
            "How wrong they are, on the same rows: WAPE against what was sold, beside that of the sound FP32 model (from the best "
            "day to the worst); difference from that model; and the largest difference from the card's golden batch as a share of what "
            "an INT8 plan may have: above 100 % the worker doesn't load it."
        ),
        "",
        "| freshretailnet-lstm | WAPE | Difference from FP32 | Golden batch |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, days in errors.items():
        growth, apart = ([each[key] for each in days] for key in ("wape_growth", "apart"))
        golden = [each["golden"] for each in days if "golden" in each]
        lines.append(
            f"| {name} | {min(growth):+.1%} to {max(growth):+.1%} | {min(apart):.1%} to {max(apart):.1%} "
            f"| {f'{min(golden):.0%} to {max(golden):.0%}' if golden else '-'} |"
        )
    return lines


def _cost(result: Result) -> list[str]:
    streams = result["data"]["freshretailnet-lstm"]["streams"]
    large, small = streams["in order, batches of 4096"], streams["in order, batches of 256"]
    return [
        (
            f"Cost, in processor time: {large['us_per_row']:.2f} µs per row in batches of 4,096 rows, of which "
            f"{large['us_per_row_single_rules']:.2f} µs for the three rules that need no history; {small['us_per_row']:.2f} µs in batches of "
            "256. The canary is the engine time of 256 rows at each swap."
        )
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else "< 0" if share < 0 else f"{share:.0%}"


def _span(span: Sequence[float] | None) -> str:
    return "-" if span is None else f"{span[0]:.0%} to {span[1]:.0%}"
