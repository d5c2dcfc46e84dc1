"""Publishes tiny models to a store as it must be done: aside, under a hidden name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from schemas.engine_card import CARD_NAME, CardError, EngineCard, load_card, sha256_hex, write_card
from schemas.model_store import CURRENT_NAME, MODEL_NAME
from tests.helpers.models import tiny_model
from worker.version_choice import VersionId


@dataclass
class TestStore:
    """A model's folder. Each version's bytes differ (its name is in the graph), what they compute doesn't unless asked to."""

    __test__ = False

    folder: Path
    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., Path] = tiny_model
    _published: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def publish(
        self,
        name: str,
        *,
        current: bool = True,
        spoil: Callable[[Path], None] = lambda _: None,
        **options: Any,
    ) -> VersionId:
        """Publish version `name`; `spoil` may break its folder before it is renamed; `options` go to `make`."""
        aside = self.folder / f".{name}.part"
        self.make(aside, version=name, **{**self.options, **options})
        _distinct(aside, name)
        spoil(aside)
        self._published += 1
        _dated(aside, self._published)
        target = self.folder / name
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
        if current:
            self.make_current(name)
        return self.version(name)

    def make_current(self, name: str) -> None:
        aside = self.folder / f".{CURRENT_NAME}.part"
        aside.write_text(f"{name}\n", encoding="utf-8")
        aside.replace(self.folder / CURRENT_NAME)

    def version(self, name: str) -> VersionId:
        """Of what the card says, whatever the model is; without a digest if the card can't be read."""
        try:
            return VersionId(name, load_card(self.folder / name / CARD_NAME).onnx_sha256)
        except CardError:
            return VersionId(name, "")

    def remove(self, name: str) -> None:
        """Rename away first: readers see the whole version or none."""
        gone = self.folder / f".{name}.gone"
        (self.folder / name).rename(gone)
        shutil.rmtree(gone)


def with_card(**changes: Any) -> Callable[[Path], None]:
    """A spoiler: other values in the card."""

    def spoil(folder: Path) -> None:
        card = load_card(folder / CARD_NAME).model_copy(update=changes)
        write_card(EngineCard.model_validate(card.model_dump()), folder / CARD_NAME)

    return spoil


def truncated(folder: Path) -> None:
    """A spoiler: half of the model's file."""
    path = folder / MODEL_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _distinct(folder: Path, name: str) -> None:
    path = folder / MODEL_NAME
    graph = onnx.load_model_from_string(path.read_bytes())
    graph.doc_string = name
    path.write_bytes(graph.SerializeToString())
    with_card(onnx_sha256=sha256_hex(path))(folder)


def _dated(folder: Path, order: int) -> None:
    """Versions are ordered by the model's time; tests publish many within one tick of the clock."""
    os.utime(folder / MODEL_NAME, ns=(order * 10**9, order * 10**9))
