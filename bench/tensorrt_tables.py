"""The GPU's results as Markdown tables, PyTorch's beside TensorRT's. Numbers come from the results alone.       (pure)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.tables import Result, table

MIB = 2**20


def pass_lines(result: Result) -> list[str]:
    """One pass of every plan: milliseconds by batch size, memory, and the distance from the reference."""
    rows = list(result["passes"][0]["ms_by_rows"])
    return table(
        ["one pass, ms", *(f"{int(count):,} rows" for count in rows), "device MiB", "differs", "one row differs"],
        [
            [
                each["graph"],
                *(f"{each['ms_by_rows'][count]:.3f}" for count in rows),
                f"{each['device_memory_bytes'] / MIB:,.0f}",
                f"{each['difference']:.2%}",
                f"{each['difference_of_one_row']:.2%}" if "difference_of_one_row" in each else "",
            ]
            for each in result["passes"]
        ],
    )


def tensorrt_lines(result: Result) -> list[str]:
    """Passes, the engine against its bare plan, CUDA graphs, changing sizes, and INT8's memory; beside what was aimed at."""
    passes, aims = result["passes"], result["aims"]
    parts = [
        pass_lines(result),
        rate_lines([each for each in passes if "rates" in each], aims["engine / bare"]),
        graph_lines([each for each in passes if "single_ms" in each], aims["graph / plain"]),
        change_lines([each for each in passes if "size_change_ms" in each]),
        memory_lines(passes, aims["int8 / fp32 memory"]),
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def rate_lines(passes: Sequence[Result], aim: float) -> list[str]:
    """Rows per second of each engine, beside its bare plan and the copies alone; held against the slower of those two."""
    rows = []
    for each in passes:
        rates = each["rates"]
        bound = min(rates["bare"], rates["copies"])
        limit = "plan" if bound == rates["bare"] else "copies"
        cells = [f"{rates[name]:,.0f}" for name in ("engine", "bare", "copies")]
        rows.append([each["graph"], *cells, f"{_aimed(rates['engine'] / bound, aim)}, of the {limit}"])
    head = ["4,096 rows at a time, rows/s", "engine, with copies", "bare plan", "copies alone", "engine / what binds"]
    return table(head, rows) if rows else []


def graph_lines(passes: Sequence[Result], aim: float) -> list[str]:
    """One batch at a time, from submit to result: by CUDA graph, and how many times as long without."""
    rows = []
    for each in passes:
        plain, graph = each["single_ms"]["plain"], each["single_ms"]["graph"]
        cells = [f"{graph[count]:.3f} ({plain[count] / graph[count]:.2f})" for count in plain]
        rows.append([each["graph"], *cells, _aimed(min(plain[count] / graph[count] for count in plain), aim)])
    if not rows:
        return []
    counts = [f"{count} rows" for count in passes[0]["single_ms"]["plain"]]
    return table(["by CUDA graph, ms (without, times)", *counts, "least"], rows)


def change_lines(passes: Sequence[Result]) -> list[str]:
    """What it costs that a batch has another size than the one before."""
    rows = [[each["graph"], *(f"{ms:.3f}" for ms in each["size_change_ms"].values())] for each in passes]
    head = ["2,048 to 4,096 rows, submit to result, ms", "all of one size", "each of another, first", "again"]
    return table(head, rows) if rows else []


def memory_lines(passes: Sequence[Result], aim: float) -> list[str]:
    """INT8's device memory as a share of FP32's, for each model that has both."""
    found = {each["graph"]: each["device_memory_bytes"] for each in passes}
    models = [name.removesuffix(".int8") for name in found if name.endswith(".int8")]
    rows = [
        [model, f"{share:.2f} (aim <= {aim:g}: {'met' if share <= aim else 'missed'})"]
        for model in models
        if found.get(f"{model}.fp32")
        for share in (found[f"{model}.int8"] / found[f"{model}.fp32"],)
    ]
    return table(["device memory", "INT8 / FP32"], rows) if rows else []


def comparison_lines(tensorrt: Result, pytorch: Result, model: str) -> list[str]:
    """How many times as fast TensorRT FP16 is as each of PyTorch's ways in FP16, by batch size."""
    (ours,) = (each["ms_by_rows"] for each in tensorrt["times"] if each["graph"] == f"{model}.fp16")
    theirs: list[Mapping[str, Any]] = [
        each for each in pytorch["times"] if f"{each['data']}-{each['model']}" == model and "fp16" in each["kind"]
    ]
    rows = [count for count in theirs[0]["ms_by_rows"] if count in ours] if theirs else []
    return table(
        ["PyTorch's time / TensorRT FP16's", *(f"{int(count):,} rows" for count in rows)],
        [[each["kind"], *(f"{each['ms_by_rows'][count] / ours[count]:.2f}" for count in rows)] for each in theirs],
    )


def _aimed(value: float, aim: float) -> str:
    return f"{value:.2f} (aim >= {aim:g}: {'met' if value >= aim else 'missed'})"
