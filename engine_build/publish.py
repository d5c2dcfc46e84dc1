"""Publishes what was built: a new version of a model, or plans for one more kind of GPU in a version that is there.

    new version        written aside as a whole, synced, renamed; then `CURRENT` is replaced
    plans for it       each under a name with its digest; then the card is replaced, which is the moment they exist

So a reader, or a publisher that comes after a crash, finds the old state or the new one. A version's model and graphs never
change: other numbers are another version. A plan that was rebuilt has another name, so that a reader with the old card finds the
old plan; the next publisher removes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine_build.disk import Disk, aside, publisher_lock, remove_leftovers, replace_file
from engine_build.errors import PublishError
from schemas.card_signature import signed
from schemas.engine_card import CARD_NAME, EngineCard, Plan, Precision, VersionFile, dump_card
from schemas.model_store import CURRENT_NAME, MODEL_NAME, StoreError, Version, is_version_name, open_version

GOLDEN_NAME: Final = "golden.npz"
REPORT_NAME: Final = "report.html"
REPORTS: Final = "reports"
LOCK_WAIT_S: Final = 300.0

Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""The JSON reports of all builds of a version -> one HTML page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one run of `engine-build` has to publish.

    card: of the model, without graphs and plans. model, golden: bytes of `model.onnx` and `golden.npz`. graphs: ONNX bytes by
    precision, without FP32, which is the model. plans: card entry and bytes, the one to prefer first. report: as JSON;
    report_name: one for each kind of GPU, so that building for one leaves the others' reports alone.
    """

    card: EngineCard
    model: bytes
    golden: bytes
    graphs: Mapping[Precision, bytes]
    plans: tuple[tuple[Plan, bytes], ...]
    report: Mapping[str, Any]
    report_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """folder: of the version. is_new: it wasn't there before. is_current: `CURRENT` names it now."""

    folder: Path
    is_new: bool
    is_current: bool


class Publisher:
    """Writes into one folder of models.

    Args:
        models: holds a folder for each model.
        render: makes the page of the reports.
        disk: makes the changes.
        key: signs the cards; None leaves them unsigned.
        lock_wait_s: how long to wait for another publisher of the same model.
    """

    def __init__(
        self,
        models: Path,
        *,
        render: Render,
        disk: Disk | None = None,
        key: Ed25519PrivateKey | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self._models = models
        self._render = render
        self._disk = disk or Disk()
        self._key = key
        self._lock_wait_s = lock_wait_s

    def publish(self, release: Release, *, make_current: bool = True) -> Published:
        """Publish `release`.

        make_current: let `CURRENT` name the version if it is new, or if there is no `CURRENT` yet. A version that was there
        stays what it is, current or not.

        Raises `PublishError`; nothing has changed then.
        """
        card = release.card
        for name, what in ((card.model, "model"), (card.version, "version")):
            if not is_version_name(name):
                raise PublishError(f"{what} {name[:80]!r} can't be a folder's name; expected letters, digits and ._+-")
        store = self._models / card.model
        try:
            self._disk.make_folder(store)
            with publisher_lock(store, wait_s=self._lock_wait_s):
                remove_leftovers(self._disk, store)
                is_new = not (store / card.version).exists()
                if is_new:
                    self._add_version(store, release)
                else:
                    self._add_plans(store, release)
                if make_current and (is_new or not (store / CURRENT_NAME).exists()):
                    set_current(self._disk, store, card.version)
                return Published(folder=store / card.version, is_new=is_new, is_current=is_current(store, card.version))
        except OSError as error:
            raise PublishError(f"{store}: can't be written: {error}; check space, rights and the mount") from error

    def _add_version(self, store: Path, release: Release) -> None:
        disk = self._disk
        folder = aside(store / release.card.version)
        for inner in ("graphs", "plans", REPORTS):
            disk.make_folder(folder / inner)
        card = release.card.model_copy(
            update={
                "graphs": _graph_files(release),
                "plans": tuple(plan for plan, _ in release.plans),
                "golden_file": VersionFile(file=GOLDEN_NAME, sha256=_sha256(release.golden)),
            }
        )
        files = {
            MODEL_NAME: release.model,
            GOLDEN_NAME: release.golden,
            CARD_NAME: self._card_bytes(card),
            **{card.graphs[precision].file: content for precision, content in release.graphs.items()},
            **{plan.file: content for plan, content in release.plans},
            **self._report_files(folder, release),
        }
        for name, content in files.items():
            disk.write(folder / name, content)
        for inner in ("graphs", "plans", REPORTS, "."):
            disk.sync_folder(folder / inner)
        disk.rename(folder, store / release.card.version)
        disk.sync_folder(store)

    def _add_plans(self, store: Path, release: Release) -> None:
        version = _same_model(store, release)
        _require_same_graphs(version.card, release)
        if version.card.signature is not None and self._key is None:
            raise PublishError(
                f"version {version.name} is signed, so its card can't be changed without a key; publish with --sign-key"
            )
        remove_stale(self._disk, version)
        folder = version.folder
        for inner in ("graphs", "plans", REPORTS):
            self._disk.make_folder(folder / inner)
        fresh = _graph_files(release)
        for precision, content in release.graphs.items():
            if precision not in version.card.graphs:
                replace_file(self._disk, folder / fresh[precision].file, content)
        for plan, content in release.plans:
            replace_file(self._disk, folder / plan.file, content)
        card = version.card.model_copy(
            update={
                "graphs": fresh | version.card.graphs,
                "plans": merged(version.card.plans, tuple(plan for plan, _ in release.plans)),
                "accuracy": release.card.accuracy | version.card.accuracy,
            }
        )
        replace_file(self._disk, folder / CARD_NAME, self._card_bytes(card))
        for name, content in self._report_files(folder, release).items():
            replace_file(self._disk, folder / name, content)

    def _card_bytes(self, card: EngineCard) -> bytes:
        checked = EngineCard.model_validate(card.model_dump(mode="json") | {"signature": None})
        return dump_card(checked if self._key is None else signed(checked, self._key)).encode("utf-8")

    def _report_files(self, folder: Path, release: Release) -> dict[str, bytes]:
        """This build's report, and the page of it and those that are there."""
        own = f"{release.report_name}.json"
        there = [path for path in sorted((folder / REPORTS).glob("*.json")) if path.name != own]
        others = [json.loads(path.read_text(encoding="utf-8")) for path in there]
        return {
            f"{REPORTS}/{own}": (json.dumps(release.report, indent=1) + "\n").encode("utf-8"),
            REPORT_NAME: self._render([release.report, *others]).encode("utf-8"),
        }


def merged(there: Sequence[Plan], new: Sequence[Plan]) -> tuple[Plan, ...]:
    """All plans: `new` first, then those of `there` that aren't of the same kind of GPU, runtime and precision."""
    replaced = {_kind(plan) for plan in new}
    return (*new, *(plan for plan in there if _kind(plan) not in replaced))


def set_current(disk: Disk, store: Path, version: str) -> None:
    """Make `version` the one that workers serve. The publisher's lock must be held."""
    replace_file(disk, store / CURRENT_NAME, f"{version}\n".encode())


def is_current(store: Path, version: str) -> bool:
    """Whether `CURRENT` names `version`."""
    path = store / CURRENT_NAME
    return path.is_file() and path.read_text(encoding="utf-8").strip() == version


def remove_stale(disk: Disk, version: Version) -> None:
    """Remove plans and leftovers that the version's card doesn't name. The publisher's lock must be held."""
    named = {plan.file for plan in version.card.plans}
    for folder in (version.folder, *(version.folder / inner for inner in ("graphs", "plans", REPORTS))):
        if folder.is_dir():
            remove_leftovers(disk, folder)
    for path in sorted((version.folder / "plans").glob("*.plan")):
        if f"plans/{path.name}" not in named:
            disk.remove(path)


def _kind(plan: Plan) -> tuple[object, ...]:
    return (plan.gpu, plan.compute_capabilities, plan.runtime, plan.runtime_version, plan.precision)


def _graph_files(release: Release) -> dict[Precision, VersionFile]:
    return {
        precision: VersionFile(file=f"graphs/{precision}.onnx", sha256=_sha256(content))
        for precision, content in release.graphs.items()
    }


def _same_model(store: Path, release: Release) -> Version:
    name = release.card.version
    try:
        version = open_version(store, name)
    except (StoreError, ValueError) as error:
        raise PublishError(f"version {name} is there and can't be used: {error}") from error
    if version.digest != release.card.onnx_sha256:
        raise PublishError(
            f"version {name} of {release.card.model} is there with another model: sha256 {version.digest[:16]}… there, "
            f"{release.card.onnx_sha256[:16]}… here; publish under another --version"
        )
    return version


def _require_same_graphs(card: EngineCard, release: Release) -> None:
    for precision, fresh in _graph_files(release).items():
        there = card.graphs.get(precision)
        if there is not None and there.sha256 != fresh.sha256:
            raise PublishError(
                f"version {card.version} of {card.model} is there with another {precision} graph: sha256 "
                f"{there.sha256[:16]}… there, {fresh.sha256[:16]}… here (other calibration or library?); build from the "
                "version's graph, or publish under another --version"
            )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
