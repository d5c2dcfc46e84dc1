"""The results of the replay benchmark as Markdown tables.                                                          (pure)"""

from __future__ import annotations

from collections.abc import Mapping

from bench.tables import Result, table

RATIO_AIM = 1.0
LATENCY_AIM = 1.2


def log_lines(result: Result) -> list[str]:
    """What was replayed, and that each record of it came out once."""
    log, once, live = result["log"], result["once"], result["to_live"]
    kills = once["killed"]["kills_after_s"]
    gaps = log["offsets"] - log["records"]
    return table(
        ["a log with everything in it", "value"],
        [
            ["events sent and committed", f"{log['sent']:,}"],
            ["records left after compaction and truncation", f"{log['records']:,}"],
            ["offsets without a record up to the end (aborted, markers, holes, truncated)", f"{gaps:,}"],
            ["forecasts of a replay by two processes", f"{once['whole']['forecasts']:,}"],
            [f"forecasts of one killed {len(kills)} times", f"{once['killed']['forecasts']:,}"],
            ["of these by its last run", f"{once['killed']['left_for_the_last_run']:,}"],
            ["`--to-live` where all is as fresh: forecasts written", f"{live['forecasts']:,}"],
            ["left alone", f"{live['left_alone']:,}"],
        ],
    )


def rate_lines(result: Result) -> list[str]:
    """Rates of the live path and of a replay over the same log, and live latency with and without a replay beside it."""
    rate, beside = result["rate"], result["beside"]
    spreads = {
        "live path": rate["live_rows_per_s"],
        "replay, one process": rate["replay_rows_per_s"],
    }
    ratios = {"replay / live path": rate["replay_to_live"]}
    if "equal_to_live" in rate:  # results from before both were measured have only the first
        spreads["replay that commits as often as the live path"] = rate["equal_rows_per_s"]
        ratios["the same, committing as often"] = rate["equal_to_live"]
    rows = [[name, f"{s['median']:,.0f}", f"{s['min']:,.0f} to {s['max']:,.0f}", ""] for name, s in spreads.items()]
    rows += [[name, *_ratio(spread)] for name, spread in ratios.items()]
    late = [
        [name, f"{s['median'] * 1000:.0f}", f"{s['min'] * 1000:.0f} to {s['max'] * 1000:.0f}", ""]
        for name, s in (("live alone", beside["p99_s"]["alone"]), ("a replay beside it", beside["p99_s"]["beside"]))
    ]
    met = "met" if beside["p99_ratio"] <= LATENCY_AIM else "missed"
    late.append(["with / without", f"{beside['p99_ratio']:.2f}", "", f"<= {LATENCY_AIM:g}: {met}"])
    return [
        *table(["rows/s", "median", "least to most", "aim"], rows),
        "",
        *table(["event to visible forecast, p99 in ms", "median", "least to most", "aim"], late),
    ]


def _ratio(spread: Mapping[str, float]) -> list[str]:
    met = "met" if spread["median"] >= RATIO_AIM else "missed"
    least_to_most = f"{spread['min']:.2f} to {spread['max']:.2f}"
    return [f"{spread['median']:.2f}", least_to_most, f">= {RATIO_AIM:g}: {met}"]
