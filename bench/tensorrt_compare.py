"""PyTorch's times beside TensorRT's, from the files of both: `python -m bench.tensorrt_compare FOLDER [MODEL]`; all without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.tensorrt_tables import comparison_lines


def main(arguments: Sequence[str]) -> int:
    """Print a table for each model that both have."""
    folder, wanted = Path(arguments[0]), arguments[1:]
    tensorrt, pytorch = (
        json.loads((folder / f"timing-{name}.json").read_text(encoding="utf-8")) for name in ("tensorrt", "pytorch")
    )
    theirs = dict.fromkeys(f"{each['data']}-{each['model']}" for each in pytorch["times"])
    ours = {each["graph"].removesuffix(".fp16") for each in tensorrt["times"] if each["graph"].endswith(".fp16")}
    for model in wanted or [name for name in theirs if name in ours]:
        print("\n".join(["", model, "", *comparison_lines(tensorrt, pytorch, model)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
