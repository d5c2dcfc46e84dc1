"""One forward pass on the GPU by PyTorch, eager and compiled, at five batch sizes. Random weights: they don't change the time.

`python -m demo.training.timing --help`. TensorRT's side is `python -m bench tensorrt`, which needs no PyTorch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from demo.training.tasks import TASKS, Task

ROWS: Final = (1, 64, 512, 2048, 8192)
_SETS: Final = 4  # of inputs, in turn, so that no cache holds them all
_WARM_UP: Final = 10
_REPEATS: Final = 50


def measure(out: Path, *, compiled: bool, only: str = "") -> None:
    """Write `timing-pytorch.json` to `out`: milliseconds per pass, median of 50, by CUDA events, inputs on the GPU already.

    only: part of the wanted models' names, as in `freshretailnet-transformer`.
    """
    lines = []
    # FP32 is to mean FP32, also for cuDNN's LSTM, which would use TF32; plans leave it out as well.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for task in TASKS.values():
        for name in task.recipes:
            if only not in f"{task.name}-{name}":
                continue
            torch.compiler.reset()  # all models share their code, and what is compiled of one piece of code is limited in number
            for kind, run in _runs(task, name, compiled=compiled).items():
                times_ms = {rows: median_ms(run, random_fields(task, rows)) for rows in ROWS}
                lines.append({"data": task.name, "model": name, "kind": kind, "ms_by_rows": times_ms})
                print(
                    f"{task.name}-{name:12s} {kind:24s}",
                    *(f"{rows}: {value:.3f} ms" for rows, value in times_ms.items()),
                    flush=True,
                )
                out.mkdir(parents=True, exist_ok=True)
                content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "times": lines}
                (out / "timing-pytorch.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _runs(task: Task, name: str, *, compiled: bool) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
    model = task.recipes[name].build(task.features).cuda().eval()

    def half(fields: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cuda", dtype=torch.float16):
            forecast: Tensor = model(fields)
            return forecast

    runs: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {"eager fp32": model, "eager fp16 autocast": half}
    if compiled:
        # Compiled for one row, then, when the number of rows changes, once more for any number of them. `dynamic=True` would
        # make the widths of the fields symbolic, too, which never change.
        runs["torch.compile fp32"] = torch.compile(model)
        runs["torch.compile fp16 autocast"] = torch.compile(half)
    return runs


def random_fields(task: Task, rows: int) -> list[dict[str, Tensor]]:
    """Some sets of random inputs on the GPU, in plausible ranges."""
    generator = torch.Generator(device="cuda").manual_seed(rows)

    def field(name: str, width: int | None) -> Tensor:
        if width is None:
            return torch.randint(17_000, 18_000, (rows,), device="cuda", generator=generator).float()
        values = torch.rand(rows, width, device="cuda", generator=generator)
        return values * 100.0 if name in {"sales", "weekday_mean"} else values

    return [{name: field(name, width) for name, width in task.features.inputs.items()} for _ in range(_SETS)]


@torch.inference_mode()
def median_ms(run: Callable[[dict[str, Tensor]], Tensor], inputs: list[dict[str, Tensor]]) -> float:
    """Median time of one pass between two CUDA events, in milliseconds."""
    for repeat in range(_WARM_UP):
        run(inputs[repeat % len(inputs)])
    torch.cuda.synchronize()
    cuda: Any = torch.cuda  # parts of it have no types
    times_ms = []
    for repeat in range(_REPEATS):
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        start.record()
        run(inputs[repeat % len(inputs)])
        end.record()
        end.synchronize()
        times_ms.append(start.elapsed_time(end))
    return float(np.median(times_ms))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.training.timing", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for timing-pytorch.json")
    parser.add_argument("--only", default="", help="part of the wanted models' names")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(arguments)
    measure(options.out, compiled=not options.no_compile, only=options.only)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
