"""Small releases to publish, and disks that fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_build.disk import Disk
from engine_build.publish import Release
from schemas.engine_card import Plan, parse_card
from tests.helpers.cards import card_content, plan_content


class CrashError(BaseException):
    """The process is gone: nothing of ours runs after it, so nobody may catch it."""


class FailingDisk(Disk):
    """Dies before step number `at` (from 0); a write dies in its middle. Counts its steps in `steps`.

    Syncs nothing: a process that dies can't tell, and the tests are ten times as fast.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0

    def _step(self) -> bool:
        """True if this is where it dies."""
        self.steps += 1
        return self.steps - 1 == self.at

    def make_folder(self, path: Path) -> None:
        if self._step():
            raise CrashError
        super().make_folder(path)

    def write(self, path: Path, content: bytes) -> None:
        if self._step():
            path.write_bytes(content[: len(content) // 2])
            raise CrashError
        path.write_bytes(content)

    def rename(self, old: Path, new: Path) -> None:
        if self._step():
            raise CrashError
        super().rename(old, new)

    def sync_folder(self, path: Path) -> None:  # noqa: ARG002
        if self._step():
            raise CrashError

    def remove(self, path: Path) -> None:
        if self._step():
            raise CrashError
        super().remove(path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plan(content: bytes, *, gpu: str = "NVIDIA H200", graph: bytes = b"half", **changes: Any) -> tuple[Plan, bytes]:
    """A plan's entry in the card and its bytes."""
    slug = gpu.lower().replace(" ", "-")
    precision = changes.get("precision", "fp16")
    fields = plan_content(
        file=f"plans/{slug}-trt8.6.1-{precision}-{sha256(content)[:12]}.plan",
        sha256=sha256(content),
        size_bytes=len(content),
        graph_sha256=sha256(graph),
        gpu=gpu,
    )
    return Plan.model_validate(fields | changes), content


def release(
    *plans: tuple[Plan, bytes],
    version: str = "1",
    model: bytes = b"full",
    graphs: Mapping[str, bytes] | None = None,
    report_name: str = "nvidia-h200",
) -> Release:
    """Version `version` of model `test`."""
    card = parse_card(json.dumps(card_content(version=version, onnx_sha256=sha256(model))))
    return Release(
        card=card,
        model=model,
        golden=b"golden",
        graphs={"fp16": b"half"} if graphs is None else graphs,  # type: ignore[arg-type]
        plans=plans or (plan(b"plan"),),
        report={"gpu": report_name},
        report_name=report_name,
    )


def render(reports: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([report["gpu"] for report in reports])
