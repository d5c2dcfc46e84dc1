"""Writes the results into bench/README.md and the project's README.md: `python -m bench.report`. No number is typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.guard_text import guard_text
from bench.job import ROOT
from bench.tables import Result, latency_lines, machine_line, memory_lines, stage_lines, throughput_lines, topic_lines
from bench.tables_replay import log_lines, rate_lines
from bench.tensorrt_tables import tensorrt_lines

README = ROOT / "bench" / "README.md"
FRONT_PAGE = ROOT / "README.md"
GUARD_PAGE = ROOT / "docs" / "guard.md"
RESULTS = ROOT / "bench" / "results"
BEGIN = "<!-- results: written by `python -m bench.report` -->"
END = "<!-- end of results -->"

Section = Callable[[Result], list[str]]


def throughput_section(result: Result) -> list[str]:
    """Rates, ratios and stages."""
    return [
        "### Throughput",
        "",
        (
            f"{machine_line(result)} {result['events']:,} events of {result['event_bytes']:.0f} bytes on "
            f"{result['partitions']} partitions, commit every {result['commit_interval_s']:g} s (the plain loop: every batch), "
            f"{result['rounds']} rounds; load average before the runs {_loads(result)}."
        ),
        "",
        *throughput_lines(result),
        "",
        "Where each contender's time goes, by its own clock:",
        "",
        *stage_lines(result),
    ]


def memory_section(result: Result) -> list[str]:
    """What was held, and whether it grew."""
    return [
        "### Memory",
        "",
        f"{machine_line(result)} The first {result['warm_up_events']:,} events are warm-up.",
        "",
        *memory_lines(result),
    ]


def latency_section(result: Result) -> list[str]:
    """Percentiles by rate and commit interval."""
    return [
        "### Latency",
        "",
        f"{machine_line(result)} The first {result['warm_up_s']:g} s of each case aren't counted.",
        "",
        *latency_lines(result),
    ]


def tensorrt_section(result: Result) -> list[str]:
    """Passes, engine and graphs on the GPU."""
    gpu = result["gpu"]
    return [
        "### TensorRT",
        "",
        (
            f"{gpu['name']} (compute capability {gpu['compute_capability']}), {result['runtime']}. Median of 200 passes between CUDA "
            "events, inputs on the GPU already, input sets in turn; device memory is what loading the plan took."
        ),
        *(["", result["doc"].replace("docs/adr", "../docs/adr")] if "doc" in result else []),
        "",
        *tensorrt_lines(result),
    ]


def freshretailnet_section(result: Result) -> list[str]:
    """Real events from topic to topic."""
    served = ", ".join(result["plans"]) or "ONNX Runtime"
    return [
        "### FreshRetailNet, topic to topic",
        "",
        (
            f"{machine_line(result)} {result['model']} by {served}; events of {result['event_bytes']:.0f} bytes, commit every "
            f"{result['commit_interval_s']:g} s, exactly once, one process."
        ),
        "",
        *topic_lines(result),
    ]


def replay_section(result: Result) -> list[str]:
    """Nothing lost, nothing twice, how fast, and what live work notices."""
    beside = result["beside"]
    return [
        "### Replay",
        "",
        (
            f"{machine_line(result)} {result['partitions']} partitions; live work at {beside['live_rate_per_s']:,}/s beside a "
            f"replay at {beside['replay_rate_per_s']:,}/s, {beside['seconds']:g} s a turn, both in turns."
        ),
        "",
        *log_lines(result),
        "",
        *rate_lines(result),
    ]


SECTIONS: Mapping[str, Section] = {
    "throughput.json": throughput_section,
    "memory.json": memory_section,
    "latency.json": latency_section,
    "tensorrt.json": tensorrt_section,
    "freshretailnet.json": freshretailnet_section,
    "replay.json": replay_section,
}


def results_text(directory: Path) -> str:
    """All sections whose result is in `directory`, as Markdown."""
    parts = []
    for name, section in SECTIONS.items():
        path = directory / name
        if path.is_file():
            parts.append("\n".join(section(json.loads(path.read_text(encoding="utf-8")))))
    return "\n\n".join(parts)


def front_page_text(directory: Path) -> str:
    """What the project's front page shows: the throughput table and where it was measured. Empty without a result."""
    path = directory / "throughput.json"
    if not path.is_file():
        return ""
    result = json.loads(path.read_text(encoding="utf-8"))
    measured = f"{machine_line(result)} Load average before the runs {_loads(result)}."
    return "\n".join([*throughput_lines(result), "", measured])


def guard_page_text(directory: Path) -> str:
    """The tables of docs/guard.md. Empty without a result."""
    path = directory / "guard.json"
    return guard_text(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ""


def with_results(text: str, results: str) -> str:
    """`text` with what is between its marks replaced. Raises `ValueError` if it lacks the marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"a page: got no lines {BEGIN!r} and {END!r}, expected both; put them where results go")
    return f"{head}{BEGIN}\n\n{results}\n\n{END}{tail}"


def main(_: Sequence[str] | None = None) -> int:
    """Rewrite the results in all pages."""
    pages = {
        README: results_text(RESULTS),
        FRONT_PAGE: front_page_text(RESULTS),
        GUARD_PAGE: guard_page_text(RESULTS),
    }
    for page, results in pages.items():
        page.write_text(with_results(page.read_text(encoding="utf-8"), results), encoding="utf-8")
        print(f"results written into {page.relative_to(ROOT)}")
    return 0


def _loads(result: Result) -> str:
    loads = [run["load"] for run in result["runs"] if run["round"] > 0]
    return f"{min(loads):.1f} to {max(loads):.1f}"


if __name__ == "__main__":
    sys.exit(main())
