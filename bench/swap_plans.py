"""A store whose versions are copies of folders with TensorRT plans, sound ones and broken ones."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.engine_card import CARD_NAME, Plan, load_card, sha256_hex, write_card
from schemas.model_store import MODEL_NAME
from tests.helpers.store import TestStore, with_card
from worker.version_choice import VersionId

MODEL = "tiny"
"""What the versions' cards call their model: the helpers' world looks for it."""
_DOC_STRING = 0x32
"""Tag of ModelProto.doc_string. A message may be continued by appending fields, so the graph needn't be read to differ."""


def unspoilt(_: Path) -> None:
    """Leaves a version as it is."""


class PlanStore(TestStore):
    """Publishes copies of `sources` in turn, each under a name of its own and with an ONNX file of its own."""

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        super().__init__(folder)
        self._sources = itertools.cycle(sources)
        self._order = itertools.count(1)

    def publish(  # type: ignore[override]  # nothing else can be chosen of these
        self, name: str, *, current: bool = True, spoil: Callable[[Path], None] = unspoilt
    ) -> VersionId:
        """As `TestStore.publish`."""
        aside = self.folder / f".{name}.part"
        shutil.copytree(next(self._sources), aside)
        graph = aside / MODEL_NAME
        text = name.encode()
        graph.write_bytes(graph.read_bytes() + bytes([_DOC_STRING, len(text)]) + text)
        card = load_card(aside / CARD_NAME)
        digest = sha256_hex(graph)
        plans = tuple(plan.model_copy(update={"graph_sha256": digest}) for plan in card.plans)
        changes = {"model": MODEL, "version": name, "onnx_sha256": digest, "plans": plans, "latency_budget_ms": None}
        write_card(card.model_copy(update=changes), aside / CARD_NAME)
        spoil(aside)
        made_ns = next(self._order) * 10**9
        os.utime(graph, ns=(made_ns, made_ns))
        aside.rename(self.folder / name)
        if current:
            self.make_current(name)
        return self.version(name)


def _with_plan(change: Callable[[Path, Plan], Plan]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        card = load_card(folder / CARD_NAME)
        plans = tuple(change(folder / plan.file, plan) for plan in card.plans)
        write_card(card.model_copy(update={"plans": plans}), folder / CARD_NAME)

    return spoil


def _truncated(path: Path, plan: Plan) -> Plan:
    path.write_bytes(path.read_bytes()[: plan.size_bytes // 2])
    return plan


def _damaged(path: Path, plan: Plan) -> Plan:
    """Half of it, and the card agrees: only TensorRT can tell."""
    content = path.read_bytes()[: plan.size_bytes // 2]
    path.write_bytes(content)
    changes = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return plan.model_copy(update=changes)


def _of_another_gpu(_: Path, plan: Plan) -> Plan:
    return plan.model_copy(update={"compute_capabilities": ("7.5",), "gpu": "Tesla T4"})


BROKEN: dict[str, Callable[[Path], None]] = {
    "truncated plan": _with_plan(_truncated),
    "half a plan that its card agrees with": _with_plan(_damaged),
    "plan of another GPU": _with_plan(_of_another_gpu),
    "wrong digest": with_card(onnx_sha256="0" * 64),
    "too slow": with_card(latency_budget_ms=1e-6),
}
