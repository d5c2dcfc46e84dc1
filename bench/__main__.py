"""`python -m bench [throughput|engine-build|memory|latency|profile|guard|replay|precision|swaps|swap-load|tensorrt|events|freshretailnet|report]`; throughput if nothing is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from bench import (
    engine_build,
    event_file,
    freshretailnet,
    guard,
    latency,
    memory,
    precision,
    profile_worker,
    replay,
    report,
    swap_load,
    swaps,
    tensorrt,
    throughput,
)

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "throughput": throughput.main,
    "memory": memory.main,
    "latency": latency.main,
    "profile": profile_worker.main,
    "precision": precision.main,
    "guard": guard.main,
    "swaps": swaps.main,
    "swap-load": swap_load.main,
    "tensorrt": tensorrt.main,
    "events": event_file.main,
    "freshretailnet": freshretailnet.main,
    "replay": replay.main,
    "engine-build": engine_build.main,
    "report": report.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run what the first argument names with the arguments behind it."""
    if arguments and arguments[0] in BENCHMARKS:
        return BENCHMARKS[arguments[0]](arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        print(f"bench: got {arguments[0]!r}, expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    return throughput.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
