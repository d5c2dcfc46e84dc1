"""What a model's folder holds now, cheaply: cards are read again only when their file changed, models when asked for.

A version whose bytes were refused is known by its content, so that it is tried again when it was repaired and not before,
whatever its name and times. Used by the loader's thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.engine_card import CARD_NAME, CardError, load_card
from schemas.model_store import MODEL_NAME, StoreError, current_name, version_names
from worker.version_choice import Listing, VersionId

Signature = tuple[tuple[str, int, int, int], ...]
"""Of each file: path below the version's folder, bytes, time of change (ns), inode. Equal: the bytes are the same."""


_REPLACED = "replaced"
"""In the place of a content that nobody can know any more: it differs from any."""


@dataclass(frozen=True, slots=True)
class _Card:
    signature: Signature
    model: str
    version: VersionId | None
    problem: str


@dataclass(frozen=True, slots=True)
class _Refusal:
    signature: Signature
    content: str
    version: VersionId | None
    reason: str


class StoreView:
    """One model's folder. `model` is its name, as the cards must say it."""

    def __init__(self, store: Path, model: str) -> None:
        self._store = store
        self._model = model
        self._cards: dict[str, _Card] = {}
        self._refusals: dict[str, _Refusal] = {}
        self._tried: dict[str, Signature] = {}
        self._problem: str | None = None

    @property
    def store(self) -> Path:
        """The folder."""
        return self._store

    @property
    def problem(self) -> str | None:
        """Why the folder couldn't be read when it was last looked at; None: it could."""
        return self._problem

    @property
    def refused(self) -> dict[VersionId, str]:
        """The refused versions -> why."""
        return {each.version: each.reason for each in self._refusals.values() if each.version is not None}

    @property
    def unreadable(self) -> dict[str, str]:
        """Names of folders whose card can't be read, or is of another model -> why."""
        return {name: card.problem for name, card in self._cards.items() if card.version is None}

    def look(self) -> Listing:
        """The folder as it is now. What can't be read shows in `problem` and `unreadable`, and stops nothing."""
        self._problem = None
        try:
            names = version_names(self._store)
        except StoreError as error:
            self._problem = str(error)
            return Listing(current=None, versions=())
        try:
            current: str | None = current_name(self._store)
        except StoreError as error:
            self._problem = str(error)
            current = None
        cards = {name: self._card(name) for name in names}
        self._cards = cards
        self._refusals = {name: refusal for name, refusal in self._refusals.items() if name in cards}
        self._tried = {name: signature for name, signature in self._tried.items() if name in cards}
        for name in list(self._refusals):
            self._look_again(name)
        versions = tuple(card.version for card in cards.values() if card.version is not None)
        return Listing(current=current, versions=versions)

    def trying(self, version: VersionId) -> None:
        """`version` is about to be loaded: what is found out about it will be true of the bytes as they are now."""
        self._tried[version.name] = _signature(self._store / version.name)

    def refuse(self, version: VersionId, reason: str) -> None:
        """Remember that the bytes of `version` were refused, as they were at `trying`; else as they are now."""
        folder = self._store / version.name
        now = _signature(folder)
        tried = self._tried.pop(version.name, now)
        content = _content(folder) if tried == now else _REPLACED
        self._refusals[version.name] = _Refusal(tried, content, version, reason)

    def forgive(self, version: VersionId) -> None:
        """Forget that it was refused: what was in its way may be gone."""
        self._refusals.pop(version.name, None)

    def _card(self, name: str) -> _Card:
        path = self._store / name / CARD_NAME
        signature = _signature(path.parent, only=CARD_NAME)
        known = self._cards.get(name)
        if known is not None and known.signature == signature:
            return known
        try:
            card = load_card(path)
        except CardError as error:
            return _Card(signature, "", None, str(error))
        if card.version != name:
            return _Card(signature, card.model, None, f"its card says version {card.version}; publish it again")
        if card.model != self._model:
            return _Card(signature, card.model, None, f"its card says model {card.model}, expected {self._model}")
        return _Card(signature, card.model, VersionId(name, card.onnx_sha256), "")

    def _look_again(self, name: str) -> None:
        """Drop the refusal if the bytes have changed."""
        refusal, folder = self._refusals[name], self._store / name
        signature = _signature(folder)
        if signature == refusal.signature:
            return
        if _content(folder) != refusal.content:
            del self._refusals[name]
        else:
            self._refusals[name] = _Refusal(signature, refusal.content, refusal.version, refusal.reason)


def _files(folder: Path) -> Sequence[Path]:
    """All files below `folder`, sorted; none if it goes away meanwhile."""
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError:
        return ()


def _signature(folder: Path, only: str | None = None) -> Signature:
    found = []
    for path in [folder / only] if only is not None else _files(folder):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


def _content(folder: Path) -> str:
    """SHA-256 over names and bytes of all files of a version."""
    whole = hashlib.sha256()
    for path in _files(folder):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            whole.update(b"gone")
    return whole.hexdigest()


def model_bytes(folder: Path) -> int:
    """Size of a version's model file; 0 if it isn't there."""
    try:
        return (folder / MODEL_NAME).stat().st_size
    except OSError:
        return 0


def model_name(store: Path) -> str:
    """The model whose versions `store` holds, as the card of the current version says, else any other that can be read.

    Raises `StoreError` if none can.
    """
    names = list(reversed(version_names(store)))
    with suppress(StoreError):  # that it is missing is reported when a version is chosen
        names.insert(0, current_name(store))
    problems = []
    for name in names:
        try:
            return load_card(store / name / CARD_NAME).model
        except CardError as error:
            problems.append(str(error))
    raise StoreError("\n".join([f"{store}: no version has a readable card; publish one first", *problems]))
