"""Which version should serve, and which be its backup: the rules, as a function of what is known.                  (pure)

By falling precedence, and in each case only among versions that may serve:

1. the pinned version (`models pin`), until it is released;
2. the promoted version (`models promote`), as long as CURRENT still names what it named when the command was given;
3. the version that CURRENT names;
4. the version that serves now;
5. the newest version published before the one that CURRENT names.

A version may serve unless it is quarantined (by a worker that rolled back, or by `models quarantine`), refused by this
worker, or not there. Quarantine wins over all, a pin among them: it says that its numbers are wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


@dataclass(frozen=True, slots=True, order=True)
class VersionId:
    """A published version of a model: its name and the sha256 (hex) of its `model.onnx`.

    The same name with other bytes is another version, and so are the same bytes under another name.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:12]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the store holds: the name in CURRENT (None: unreadable), and the versions whose card can be read, oldest first."""

    current: str | None
    versions: tuple[VersionId, ...]

    def named(self, name: str | None) -> VersionId | None:
        """The version of that name."""
        return next((version for version in self.versions if version.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """`version` serves as if CURRENT named it, while CURRENT names `over` (None: until it is released)."""

    version: VersionId
    over: VersionId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the fleet was told. quarantined: version -> reason."""

    pin: VersionId | None = None
    promotion: Promotion | None = None
    quarantined: Mapping[VersionId, str] = field(default_factory=lambda: MappingProxyType({}))


class Rule(StrEnum):
    """Which rule chose the version."""

    PIN = "pin"
    PROMOTED = "promoted"
    CURRENT = "current"
    STAY = "stay"
    OLDER = "older"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The version that should serve and its backup; None where there is none. notes: wishes that couldn't be met, in words."""

    target: VersionId | None
    backup: VersionId | None
    rule: Rule
    notes: tuple[str, ...] = ()


def choose(
    listing: Listing,
    control: Control,
    *,
    refused: Mapping[VersionId, str],
    serving: VersionId | None,
    before: Collection[VersionId] = (),
) -> Choice:
    """The version to serve and its backup.

    refused: by this worker -> reason. serving: now, which may have gone from the store since. before: versions that are
    loaded or served before, the latest first; they are preferred as the backup.
    """
    notes: list[str] = []
    wishes = _wishes(listing, control)
    if serving is not None:
        wishes.append((Rule.STAY, serving))
    wishes += [(Rule.OLDER, version) for version in _older(listing, listing.named(listing.current))]
    target, rule = None, Rule.NONE
    for wish, version in wishes:
        why_not = _why_not(version, listing, control, refused, serving)
        if why_not is None:
            target, rule = version, wish
            break
        if wish in {Rule.PIN, Rule.PROMOTED, Rule.CURRENT}:
            notes.append(f"{wish} asks for version {version}, which {why_not}")
    if listing.current is not None and listing.named(listing.current) is None:
        notes.append(f"CURRENT names version {listing.current}, which isn't there or has no readable card")
    backup = _backup(listing, control, refused, target, [*([] if serving is None else [serving]), *before])
    return Choice(target=target, backup=backup, rule=rule, notes=tuple(notes))


def _wishes(listing: Listing, control: Control) -> list[tuple[Rule, VersionId]]:
    wishes = []
    current = listing.named(listing.current)
    if control.pin is not None:
        wishes.append((Rule.PIN, control.pin))
    promotion = control.promotion
    if promotion is not None and promotion.over in {None, current}:
        wishes.append((Rule.PROMOTED, promotion.version))
    if current is not None:
        wishes.append((Rule.CURRENT, current))
    return wishes


def _why_not(
    version: VersionId,
    listing: Listing,
    control: Control,
    refused: Mapping[VersionId, str],
    serving: VersionId | None,
) -> str | None:
    """Why it may not serve; None if it may. One that serves needn't be in the store any more."""
    if version in control.quarantined:
        return f"is quarantined: {control.quarantined[version]}"
    if version == serving:
        return None
    if version in refused:
        return f"was refused: {refused[version]}"
    return None if version in listing.versions else "isn't in the store"


def _older(listing: Listing, than: VersionId | None) -> list[VersionId]:
    """Versions published before `than`, the newest first; all if there is no such version."""
    if than is None:
        return list(reversed(listing.versions))
    return list(reversed(listing.versions[: listing.versions.index(than)]))


def _backup(
    listing: Listing,
    control: Control,
    refused: Mapping[VersionId, str],
    target: VersionId | None,
    loaded: list[VersionId],
) -> VersionId | None:
    """What was loaded or served last, else the newest version before the target; never the target's own bytes."""
    if target is None:
        return None
    candidates = [*loaded, *(_older(listing, target) if target in listing.versions else [])]
    return next(
        (
            version
            for version in candidates
            if version.digest != target.digest
            and version not in control.quarantined
            and version not in refused
            and (version in listing.versions or version in loaded)
        ),
        None,
    )
