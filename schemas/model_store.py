"""The shared folder that models are published to, and how to read it. Written by `engine-build`, read by workers.

    MODELS/<model>/CURRENT                         the name of the version to serve, one line
    MODELS/<model>/<version>/card.json             names every other file with its digest
    MODELS/<model>/<version>/model.onnx
    MODELS/<model>/<version>/graphs/<precision>.onnx
    MODELS/<model>/<version>/plans/<gpu>-<runtime>-<precision>-<digest>.plan

A version is written aside, under a hidden name, and renamed: a folder with a version's name is complete. `CURRENT` and a
card that gains a plan are replaced by renaming too, so a reader sees the old file or the new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.engine_card import CARD_NAME, EngineCard, load_card, sha256_hex

CURRENT_NAME: Final = "CURRENT"
MODEL_NAME: Final = "model.onnx"

_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


class StoreError(ValueError):
    """A model folder isn't as it should be. The message says which file, got, expected and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published version: a folder whose name is `card.version`.

    Its identity is `digest`, the model's sha256: plans for further GPUs may be added to a version later, but a version
    published again under the same name with another model is another version.
    """

    folder: Path
    card: EngineCard

    @property
    def name(self) -> str:
        """The version's name, unique within the model."""
        return self.card.version

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of `model.onnx`."""
        return self.card.onnx_sha256

    @property
    def model(self) -> Path:
        """The FP32 ONNX file."""
        return self.folder / MODEL_NAME


def is_store(folder: Path) -> bool:
    """True if `folder` holds versions of a model rather than one model."""
    return (folder / CURRENT_NAME).is_file()


def is_version_name(name: str) -> bool:
    """True for what may be a version's folder: letters, digits and `._+-`, not hidden, at most 128 long."""
    return _VERSION.fullmatch(name) is not None


def version_names(store: Path) -> tuple[str, ...]:
    """The names of all version folders, oldest first. Raises `StoreError`."""
    try:
        found = [
            ((folder / MODEL_NAME).stat().st_mtime_ns, folder.name)
            for folder in store.iterdir()
            if is_version_name(folder.name) and (folder / CARD_NAME).is_file() and (folder / MODEL_NAME).is_file()
        ]
    except OSError as error:
        raise StoreError(f"{store}: can't be listed: {error.strerror}; expected a folder with versions") from error
    return tuple(name for _, name in sorted(found))


def current_name(store: Path) -> str:
    """The version that `CURRENT` names. Raises `StoreError` if the file is missing or names none."""
    path = store / CURRENT_NAME
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: can't be read: {error}; publish a version first") from error
    if not is_version_name(name):
        raise StoreError(f"{path}: got {name[:80]!r}, expected the name of a version")
    return name


def open_version(store: Path, name: str) -> Version:
    """Version `name`, its card read and its model's digest checked. Plans are checked by whoever loads one.

    Raises `StoreError` if the folder or a file is missing or differs from the card, `CardError` if the card is wrong.
    """
    if not is_version_name(name):
        raise StoreError(f"version: got {name[:80]!r}, expected letters, digits and ._+-, not hidden")
    folder = store / name
    if not folder.is_dir():
        there = ", ".join(version_names(store)) or "none"
        raise StoreError(f"{store}: there is no version {name}; there are: {there}")
    version = Version(folder=folder, card=load_card(folder / CARD_NAME))
    if version.name != name:
        raise StoreError(f"{folder / CARD_NAME}: says version {version.name}, its folder says {name}; publish it again")
    require_digest(version.model, version.digest)
    return version


def require_digest(path: Path, expected: str) -> None:
    """Raise `StoreError` unless the bytes of `path` have the sha256 `expected`."""
    try:
        got = sha256_hex(path)
    except OSError as error:
        raise StoreError(f"{path}: can't be read: {error.strerror}; the version isn't complete") from error
    if got != expected:
        raise StoreError(
            f"{path}: sha256 is {got}, its card says {expected}; the file is damaged or was replaced: publish it again"
        )
