"""PyTorch's times beside TensorRT's, from the files of both: `python -m bench.tensorrt_compare FOLDER [MODEL]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.tensorrt_tables import comparison_lines

PRIMARY = "freshretailnet-transformer"


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    folder, model = Path(arguments[0]), arguments[1] if len(arguments) > 1 else PRIMARY
    tensorrt, pytorch = (
        json.loads((folder / f"timing-{name}.json").read_text(encoding="utf-8")) for name in ("tensorrt", "pytorch")
    )
    print("\n".join(comparison_lines(tensorrt, pytorch, model)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
