"""The section of docs/accuracy.md about the cost of a forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_ROWS: Final = ("1", "64", "512", "2048", "8192")
_OPENING: Final = """## One forward pass on the GPU

Milliseconds, median of 50 passes by PyTorch and of 200 by TensorRT, by CUDA events, inputs on the GPU already, input sets in turn.
FP32 is without TF32."""


def timing_section(results: Path) -> str:
    """The measured times; a sentence if none were measured."""
    lines = [*_pytorch(results / "timing-pytorch.json"), *_tensorrt(results / "timing-tensorrt.json")]
    if not lines:
        return "## One forward pass on the GPU\n\nNot measured yet: `python -m demo.training timing` and `python -m bench tensorrt --only ''` do it."
    header = ["model", "by", *(f"{rows} rows" for rows in _ROWS)]
    return (
        "\n".join([_OPENING, *_said(results)])
        + "\n\n"
        + "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])
    )


def _said(results: Path) -> list[str]:
    """What a result says of itself."""
    paths = (results / f"timing-{name}.json" for name in ("pytorch", "tensorrt"))
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    return [content["doc"] for content in contents if "doc" in content]


def _pytorch(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    times = json.loads(path.read_text(encoding="utf-8"))["times"]
    return [[f"{each['data']}-{each['model']}", each["kind"], *_figures(each["ms_by_rows"])] for each in times]


def _tensorrt(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    by = f"TensorRT {content['tensorrt']}"
    pairs = [(each["graph"].rsplit(".", 1), each["ms_by_rows"]) for each in content["times"]]
    return [[model, f"{by} {precision.upper()}", *_figures(times)] for (model, precision), times in pairs]


def _figures(times_ms: dict[str, float]) -> list[str]:
    return [f"{times_ms[rows]:.3f}" for rows in _ROWS]
