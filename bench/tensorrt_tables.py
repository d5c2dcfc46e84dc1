"""The GPU's results as Markdown tables, PyTorch's beside TensorRT's. Numbers come from the results alone.       (pure)"""

from __future__ import annotations

from collections.abc import Mapping
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
                f"{each['difference_of_one_row']:.2%}",
            ]
            for each in result["passes"]
        ],
    )


def tensorrt_lines(result: Result) -> list[str]:
    """Passes, the engine against its bare plan, CUDA graphs, and what was aimed at."""
    lines, aims = pass_lines(result), result["aims"]
    for each in result["passes"]:
        if "rates" in each:
            lines += ["", *rate_lines(each["graph"], each["rates"], aims["engine / bare"])]
        if "single_ms" in each:
            lines += ["", *single_lines(each["graph"], each["single_ms"], aims["graph / plain"])]
    return [*lines, *_memory(result)]


def rate_lines(name: str, rates: Mapping[str, float], aim: float) -> list[str]:
    """Rows per second of the engine beside its bare plan and the copies alone; held against the slower of those two."""
    bound = min(rates["bare"], rates["copies"])
    limit = "the plan" if bound == rates["bare"] else "the copies"
    return table(
        [f"{name}, 4,096 rows at a time", "rows/s"],
        [
            ["engine, with its copies", f"{rates['engine']:,.0f}"],
            ["bare plan, back to back, inputs on the device", f"{rates['bare']:,.0f}"],
            ["copies alone", f"{rates['copies']:,.0f}"],
            [f"engine / {limit}, which binds", _aimed(rates["engine"] / bound, aim)],
        ],
    )


def single_lines(name: str, single_ms: Mapping[str, Mapping[str, float]], aim: float) -> list[str]:
    """One batch at a time, by graph and enqueued."""
    plain, graph = single_ms["plain"], single_ms["graph"]
    return table(
        [f"{name}, one batch, submit to result, ms", "enqueued", "CUDA graph", "ratio"],
        [
            [f"{rows} rows", f"{plain[rows]:.3f}", f"{graph[rows]:.3f}", _aimed(plain[rows] / graph[rows], aim)]
            for rows in plain
        ],
    )


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


def _memory(result: Result) -> list[str]:
    """INT8's device memory as a share of FP32's, for each model that has both."""
    found = {each["graph"]: each["device_memory_bytes"] for each in result["passes"]}
    models = [name.removesuffix(".int8") for name in found if name.endswith(".int8")]
    return [
        line
        for model in models
        if found.get(f"{model}.fp32")
        for line in (
            "",
            (
                f"{model}: device memory INT8 / FP32: "
                f"{found[f'{model}.int8'] / found[f'{model}.fp32']:.2f} (aim <= {result['aims']['int8 / fp32 memory']:g})"
            ),
        )
    ]


def _aimed(value: float, aim: float) -> str:
    return f"{value:.2f} (aim >= {aim:g}: {'met' if value >= aim else 'missed'})"
