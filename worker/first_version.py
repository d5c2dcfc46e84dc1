"""Which version serves first: the chosen one if it can be proved, else, loudly, the next one that the rules allow.

Runs before the loop does, on the main thread. A version is proved here as at any other time, so a worker that was killed in
the middle of a swap starts with one that was.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import structlog

from worker.control import Commands
from worker.errors import ContractError
from worker.loading import Loaded, Loader, RefusedError
from worker.model_status import Counts, Phase, counted
from worker.store_listing import StoreView
from worker.version_choice import Choice, Listing, Rule, VersionId, choose

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """A proved engine, the choice that led to it, and how long loading took (of refused versions, too).

    passing: versions that found no room, but may later.
    """

    loaded: Loaded
    choice: Choice
    loads: Counts
    passing: frozenset[VersionId] = frozenset()


def first_version(view: StoreView, loader: Loader, commands: Commands, model: str, *, older: bool) -> First:
    """The version to start with. older: take an older one when those that are asked for can't serve.

    Raises `ContractError` if none can; the message says of each why.
    """
    refused: dict[VersionId, str] = {}
    passing: set[VersionId] = set()
    loads: Counts = MappingProxyType({})

    def timed(phase: Phase, seconds: float) -> None:
        nonlocal loads
        loads = counted(loads, phase, seconds)

    loader.timed = timed
    while True:
        listing = view.look()
        choice = choose(listing, commands.of(model), refused={**view.refused, **refused}, serving=None)
        if choice.target is None or (choice.rule is Rule.OLDER and not older):
            raise ContractError(_none_left(view, listing, choice, refused))
        view.trying(choice.target)
        try:
            loaded = loader.load(choice.target)
        except RefusedError as error:
            refused[choice.target] = str(error)
            passing |= {choice.target} if error.passing else set()
            view.refuse(choice.target, str(error))
            log.error(  # noqa: TRY400 - the reason says it all
                "version refused at the start", version=str(choice.target), reason=str(error)
            )
            continue
        if choice.rule is Rule.OLDER:
            log.error("an OLDER version serves than the one asked for", version=str(choice.target), notes=choice.notes)
        return First(loaded=loaded, choice=choice, loads=loads, passing=frozenset(passing))


def _none_left(view: StoreView, listing: Listing, choice: Choice, refused: dict[VersionId, str]) -> str:
    lines = [f"engine.model: no version in {view.store} can serve (CURRENT names {listing.current or 'none'})"]
    lines += [f"version {version}: {reason}" for version, reason in refused.items()]
    lines += [f"folder {name}: {problem}" for name, problem in view.unreadable.items()]
    lines += [*choice.notes, *([view.problem] if view.problem else [])]
    remedy = "publish a sound version, or release one: forecast-worker models list"
    if choice.target is not None:
        remedy = f"version {choice.target} is older and may: set models.older_at_start, or publish again"
    return "\n  - ".join([*lines, remedy])
