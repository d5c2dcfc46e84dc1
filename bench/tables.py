"""Results as Markdown tables: the same ones on a terminal and in the README. Numbers come from the results alone. (pure)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
"""A result file, as `json.loads` gives it."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with aligned columns; all but the first one to the right."""
    lines = [head, *rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(lines[0]), rule, *map(line, lines[1:])]


def throughput_lines(result: Result) -> list[str]:
    """Rates and CPU time of every contender, then the ratios with their aims."""
    rates, cpu = result["rows_per_s"], result["cpu_us_per_row"]
    rows = [
        [name, f"{s['median']:,.0f}", f"{s['min']:,.0f} to {s['max']:,.0f}", f"{cpu[name]['median']:.1f}"]
        for name, s in rates.items()
    ]
    ratios = [
        [name, f"{s['median']:.2f}", f"{s['min']:.2f} to {s['max']:.2f}", _aim(s["median"], result["aims"].get(name))]
        for name, s in result["ratios"].items()
    ]
    return [
        *table(["contender", "rows/s", "least to most", "CPU µs/row"], rows),
        "",
        *table(["ratio of rows/s", "median", "least to most", "aim"], ratios),
    ]


def stage_lines(result: Result) -> list[str]:
    """Microseconds per row that each contender spent in each step, medians over the counted rounds."""
    names = list(result["rows_per_s"])
    spent: dict[str, dict[str, float]] = {}
    for name in names:
        runs = [run["outcome"] for run in result["runs"] if run["contender"] == name and run["round"] > 0]
        spent[name] = {
            stage: sorted(run["stage_s"].get(stage, 0.0) / run["events"] * 1e6 for run in runs)[len(runs) // 2]
            for stage in runs[0]["stage_s"]
        }
    stages = ["poll", "decode", "engine", "guard", "encode", "produce", "commit"]
    rows = [[name, *(f"{spent[name][s]:.2f}" if s in spent[name] else "" for s in stages)] for name in names]
    return table(["µs per row", *stages], rows)


def topic_lines(result: Result) -> list[str]:
    """Seconds from topic to topic, and the steps they went to."""
    seconds = result["seconds"]
    return table(
        [f"{result['events']:,} events, topic to topic", "seconds"],
        [
            ["first record to last commit, median", f"{seconds['median']:.3f}"],
            ["least to most", f"{seconds['min']:.3f} to {seconds['max']:.3f}"],
            *([_stage(stage), f"{spent:.3f}"] for stage, spent in result["stage_s"].items()),
        ],
    )


def _stage(stage: str) -> str:
    return "engine, from submit to fetch, beside the others" if stage == "engine" else f"of which {stage}"


def memory_lines(result: Result) -> list[str]:
    """How much memory the worker held, and whether that grew."""
    mib = 2**20
    return table(
        ["memory of the worker", "value"],
        [
            ["events after warm-up", f"{result['events']:,}"],
            ["samples after warm-up", f"{result['samples_after_warm_up']:,}"],
            ["median", f"{result['rss_bytes']['median'] / mib:.0f} MiB"],
            ["least to most", f"{result['rss_bytes']['min'] / mib:.0f} to {result['rss_bytes']['max'] / mib:.0f} MiB"],
            ["furthest from the median", f"{result['deviation']:.1%}"],
            ["trend over all events", f"{result['trend']:+.1%}"],
            ["flat (within 5 %)", "yes" if result["flat"] else "no"],
        ],
    )


def latency_lines(result: Result) -> list[str]:
    """Percentiles of the time from event to visible forecast."""
    rows = [
        [
            f"{case['rate_per_s']:,}/s, commit every {case['commit_interval_s']:g} s",
            f"{case['events']:,}",
            *(f"{case['latency_s'][p] * 1000:.0f}" for p in ("p50", "p90", "p99", "max")),
        ]
        for case in result["cases"]
    ]
    return table(["event to visible forecast, ms", "events", "p50", "p90", "p99", "max"], rows)


def machine_line(result: Result) -> str:
    """What it was measured on, in one sentence."""
    m = result["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in m["libraries"].items())
    return (
        f"{m['cpu']}, {m['cores']} cores (shared by broker and client), {m['memory_gib']:g} GiB; Python {m['python']}, "
        f"{libraries}, librdkafka {m['librdkafka']}; Apache Kafka {m['broker']['kafka']}, heap {m['broker']['heap']}."
    )


def _aim(value: float, aim: float | None) -> str:
    return "" if aim is None else f">= {aim:g}: {'met' if value >= aim else 'missed'}"
