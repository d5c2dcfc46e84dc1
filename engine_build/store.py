"""Looking after a folder of versions: verify, list, make one current, and remove old ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine_build.disk import Disk, aside, publisher_lock, remove_leftovers, replace_file
from engine_build.errors import PublishError
from engine_build.publish import LOCK_WAIT_S, is_current, remove_stale, set_current
from schemas.card_signature import SignatureError, load_signed_card, signed
from schemas.engine_card import CARD_NAME, CardError, EngineCard, dump_card, load_card
from schemas.model_store import (
    MODEL_NAME,
    StoreError,
    current_name,
    is_store,
    open_version,
    require_digest,
    version_names,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A version as `list` shows it. problem: why its card can't be read, None if it can. size_bytes: of all its files."""

    name: str
    is_current: bool
    size_bytes: int
    card: EngineCard | None
    problem: str | None


def verify_version(folder: Path, trusted: Sequence[Ed25519PublicKey] = ()) -> tuple[str, ...]:
    """All that is wrong with the version in `folder`, one sentence each: files, digests, and the signature if keys are given."""
    try:
        card = load_signed_card(folder / CARD_NAME, trusted) if trusted else load_card(folder / CARD_NAME)
    except (CardError, SignatureError) as error:
        return (str(error),)
    problems = []
    if card.version != folder.name:
        problems.append(f"{folder / CARD_NAME}: says version {card.version}, its folder says {folder.name}")
    files = {MODEL_NAME: card.onnx_sha256}
    files |= {graph.file: graph.sha256 for graph in card.graphs.values()}
    files |= {plan.file: plan.sha256 for plan in card.plans}
    if card.golden_file is not None:
        files[card.golden_file.file] = card.golden_file.sha256
    for name, digest in files.items():
        try:
            require_digest(folder / name, digest)
        except StoreError as error:
            problems.append(str(error))
    graphs = {card.onnx_sha256, *(graph.sha256 for graph in card.graphs.values())}
    problems += [
        f"{plan.file}: built from graph {plan.graph_sha256[:16]}…, which the version doesn't have; build it anew"
        for plan in card.plans
        if plan.graph_sha256 not in graphs
    ]
    return tuple(problems)


def listed(store: Path) -> tuple[Listed, ...]:
    """All versions, oldest first. Raises `StoreError`."""
    found = []
    for name in version_names(store):
        card, problem = None, None
        try:
            card = load_card(store / name / CARD_NAME)
        except CardError as error:
            problem = str(error)
        size_bytes = sum(path.stat().st_size for path in (store / name).rglob("*") if path.is_file())
        found.append(
            Listed(name=name, is_current=is_current(store, name), size_bytes=size_bytes, card=card, problem=problem)
        )
    return tuple(found)


def use_version(store: Path, name: str, *, disk: Disk | None = None, lock_wait_s: float = LOCK_WAIT_S) -> None:
    """Make `name` current, whatever was: forward or back. Raises `StoreError`, `PublishError`; nothing has changed then."""
    open_version(store, name)
    problems = verify_version(store / name)
    if problems:
        raise PublishError(f"version {name} isn't whole, `CURRENT` stays: {'; '.join(problems)}")
    with publisher_lock(store, wait_s=lock_wait_s):
        set_current(disk or Disk(), store, name)


def sign_version(
    store: Path, name: str, key: Ed25519PrivateKey, *, disk: Disk | None = None, lock_wait_s: float = LOCK_WAIT_S
) -> None:
    """Sign the card of `name`, after checking all of its files. Raises `StoreError`, `PublishError`."""
    with publisher_lock(store, wait_s=lock_wait_s):
        version = open_version(store, name)
        problems = verify_version(version.folder)
        if problems:
            raise PublishError(f"version {name} isn't whole, it stays unsigned: {'; '.join(problems)}")
        card = dump_card(signed(version.card, key)).encode("utf-8")
        replace_file(disk or Disk(), version.folder / CARD_NAME, card)


def collect_garbage(
    store: Path,
    *,
    keep: int,
    pinned: Collection[str] = (),
    disk: Disk | None = None,
    lock_wait_s: float = LOCK_WAIT_S,
) -> tuple[str, ...]:
    """Remove all versions but the `keep` newest, the current one and `pinned`; and leftovers everywhere. The names removed.

    A version vanishes under its name at once and its files after that. Raises `PublishError`, `StoreError`.
    """
    disk = disk or Disk()
    if keep < 1:
        raise PublishError(f"keep: got {keep}, expected 1 or more; the current version stays in any case")
    with publisher_lock(store, wait_s=lock_wait_s):
        remove_leftovers(disk, store)
        names = version_names(store)
        unknown = sorted(set(pinned) - set(names))
        if unknown:
            raise PublishError(f"pinned {', '.join(unknown)}: no such version; there are: {', '.join(names) or 'none'}")
        kept = {*names[-keep:], *pinned, *([current_name(store)] if is_store(store) else [])}
        removed = tuple(name for name in names if name not in kept)
        for name in removed:
            hidden = aside(store / name, "removed")
            disk.rename(store / name, hidden)
            disk.sync_folder(store)
            disk.remove(hidden)
        for name in names:
            if name in kept:
                with suppress(StoreError, CardError):  # a damaged version is `verify`'s business
                    remove_stale(disk, open_version(store, name))
        return removed
