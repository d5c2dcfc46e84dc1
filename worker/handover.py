"""Where the loop's thread and the threads that look after versions meet, and the only place where they do.

What this file guarantees:

- An engine has one owner at a time. The loader's thread owns it from making it until the loop takes the order that names it;
  then the loop owns it until it reports `Freed`; from there on it is the loader's again, to be closed.
- The loop never waits here. It reads one reference per step, and puts into queues that have no bound and no lock of ours
  (`queue.SimpleQueue`, whose `put` is atomic and never blocks).
- What others may see is a value that never changes, behind one reference: they see the old one or the new one, whole.

What it assumes:

- Each reference has one writer. `Mailbox`: one thread puts, one takes. `quarantined`: the fleet's thread writes (without a
  fleet: nobody). `status`, `loading`, `backup_expected`, `sample_every`: the loader's thread writes. `sample_wanted`: the loader's thread sets
  it, the loop's clears it.
- Assigning a reference is atomic, as it is in CPython with and without its global lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.engine import Engine
from worker.errors import FatalEngineError
from worker.guard_reference import Reference
from worker.model_status import ModelStatus
from worker.version_choice import VersionId

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Room for one value. One thread puts, another takes; neither waits."""

    def __init__(self) -> None:
        self._value: T | None = None

    @property
    def full(self) -> bool:
        """True while a value waits to be taken."""
        return self._value is not None

    def put(self, value: T) -> None:
        """Leave `value`. Raises `ValueError` if the one before wasn't taken: its putter must wait for the answer."""
        if self._value is not None:
            raise ValueError("the mailbox is full; wait until what is in it was taken")
        self._value = value

    def take(self) -> T | None:
        """What was left, once; None if nothing was."""
        value = self._value
        if value is not None:
            self._value = None
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """An engine that was proved, the version that it runs, and how its forecasts usually are.

    standby: the same version's model by another runtime, for when the engine's device has no memory left; None if it has
    none. Whoever owns the engine owns it, too.
    """

    engine: Engine
    version: VersionId
    reference: Reference = field(default_factory=Reference)
    standby: Engine | None = None

    def close(self) -> None:
        """Free the engine and its stand-by. Idempotent, as `Engine.close` is."""
        self.engine.close()
        if self.standby is not None:
            self.standby.close()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Order:
    """From the loader: what is to serve from the next batch on, and its backup. What it doesn't name is to be freed.

    losses: how many engines the loader knew the loop to have given up by itself, as it rolled back or dropped a quarantined
    backup. After another one the loop declines the order, which was thought out without it and may name that very engine.
    """

    serving: Fitted
    backup: Fitted | None
    losses: int


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """The loop took `order` up."""

    order: Order


@dataclass(frozen=True, slots=True, eq=False)
class Declined:
    """The loop didn't take `order` up, and holds nothing of it that it didn't hold before."""

    order: Order


@dataclass(frozen=True, slots=True, eq=False)
class Freed:
    """No batch holds anything of `engine`, none will, and no commit is soon due, which closing might hold up: close it."""

    engine: Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """`version` doesn't serve any more, `now` does: None for the last resort, and for nothing at all (held).

    told: the fleet said so, else this worker's guard did.
    """

    version: VersionId
    now: VersionId | None
    reason: str
    told: bool
    held: bool


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Copies of a live batch's inputs, and what the serving engine made of them: float32[rows, horizon, quantiles]."""

    columns: Mapping[str, NDArray[np.float32]]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Look:
    """Something may have changed in the model's folder or on the control topic."""


Report = Turned | Declined | Freed | Left | Sample | Look

NOBODY: Mapping[VersionId, str] = MappingProxyType({})


class Handover:
    """The meeting place. See the top of the file."""

    def __init__(self) -> None:
        self.orders: Mailbox[Order] = Mailbox()
        self.inbox: SimpleQueue[Report] = SimpleQueue()
        """To the loader's thread."""
        self.left: SimpleQueue[Left] = SimpleQueue()
        """To the fleet's thread: what this worker's guard found."""
        self.quarantined: Mapping[VersionId, str] = NOBODY
        """Version -> reason."""
        self.status = ModelStatus()
        self.loading = False
        self.backup_expected = False
        """A backup is wanted and isn't loaded yet."""
        self.sample_every = 0
        """The loop offers each so many-th batch for comparison; 0: none."""
        self.sample_wanted = False
        self.failed: FatalEngineError | None = None
        """The loader met an error after which no engine of this process can be used. The loop raises it."""
