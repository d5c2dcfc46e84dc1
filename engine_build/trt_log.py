"""What TensorRT writes into its log, and what it means. There is no other way to learn why it refused something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_REQUESTED: Final = re.compile(r"Requested size was (\d+) bytes")
_MEMORY: Final = re.compile(r"out of memory|OutOfMemory|insufficient memory|cudaErrorMemoryAllocation", re.IGNORECASE)
_WORKSPACE: Final = re.compile(r"workspace limit|allowed workspace size|insufficient workspace", re.IGNORECASE)
_NO_IMPLEMENTATION: Final = "Could not find any implementation"
_REMEDIES: Final = (
    (r"Serialization|magic|corrupt|malformed|truncated", "the file is damaged or of another version: build it again"),
    (
        r"FP32 GEMM is not supported",
        "TensorRT-RTX has no FP32 for this GPU type: build with tensorrt on such a machine",
    ),
    (
        r"driver version is insufficient|no CUDA-capable device|CUDA initialization failure",
        "this needs an NVIDIA GPU and its driver; with TensorRT-RTX, name a --target to build without one",
    ),
    (
        r"compute capability|Target GPU SM",
        "this library doesn't support that GPU type: use the other one (tensorrt or tensorrt_rtx)",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the log. severity: as TensorRT names it, e.g. "ERROR"."""

    severity: str
    text: str


def recorder(trt: Any, records: list[Record]) -> Any:  # noqa: ANN401 - classes of an untyped library
    """A logger for `trt` that appends to `records` what is a warning or worse.

    TensorRT keeps the first logger of a process and ignores later ones, so there is one for each library.
    """
    kept = {"INTERNAL_ERROR", "ERROR", "WARNING"}

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            name = str(getattr(severity, "name", severity)).rpartition(".")[2]
            if name in kept:
                records.append(Record(severity=name, text=msg))

    return Recorder()


def errors_of(records: Sequence[Record]) -> str:
    """The errors of the log in one line, each once; without any, its warnings: 8.6 has no more to say of a missing GPU."""
    errors = [record for record in records if record.severity != "WARNING"]
    texts = [" ".join(record.text.split()) for record in errors or records]
    return " | ".join(dict.fromkeys(texts)) or "it gave no reason"


def was_out_of_memory(records: Sequence[Record]) -> bool:
    """True if the device's memory didn't suffice."""
    return any(_MEMORY.search(record.text) for record in records)


def has_no_implementation(records: Sequence[Record]) -> bool:
    """True if there is no kernel for some layer in the precision that was asked for."""
    return any(_NO_IMPLEMENTATION in record.text for record in records)


def missing_workspace_bytes(records: Sequence[Record], limit: int | None) -> int | None:
    """How much workspace was wanted above `limit`: 0 if the log doesn't say how much, None if the limit wasn't the matter."""
    if limit is None:
        return None
    text = " ".join(record.text for record in records)
    needed = [int(size) for size in _REQUESTED.findall(text) if int(size) > limit]
    if needed:
        return max(needed)
    return 0 if _WORKSPACE.search(text) else None


def remedy_for(text: str) -> str:
    """What to do about an error that TensorRT gave."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, text, re.IGNORECASE):
            return remedy
    return "its log above says why; `engine-build build --explain` shows what was asked of it"
