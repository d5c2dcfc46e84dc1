"""From a version's name to an engine that was proved: check, room, load, prove, warm. Each refusal says why.

Runs on the loader's thread (at the start: on the main thread), which owns the engine until it hands it over. What only
computes goes through `low_priority.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.engine_card import EngineCard
from schemas.model_store import open_version
from worker.deadline import Clock
from worker.engine import Engine, EngineSpec
from worker.errors import FatalEngineError
from worker.guard_reference import reference_of
from worker.handover import Fitted
from worker.low_priority import at_low_priority
from worker.memory_room import DeviceAsked, FreeBytes, NoRoomError, needed_bytes, require_room
from worker.model_status import DeviceMemory, Phase
from worker.proving import prove, warm
from worker.store_listing import model_bytes
from worker.version_choice import VersionId

MODEL_PROBES = (
    "model_checked",
    "model_loaded",
    "model_proven",
    "model_warm",
    "model_handed_over",
    "model_turned",
    "model_freed",
)
"""Points on a version's way where tests stop the process, in their order."""


class RefusedError(Exception):
    """A version can't serve here. The message says why; `passing`: it may later, with the same bytes."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(reason)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Loaded:
    """A proved engine and its version. full_batch_s: seconds of a batch of `max_rows` rows, the best of some."""

    fitted: Fitted
    full_batch_s: float

    @property
    def version(self) -> VersionId:
        """Which version it is."""
        return self.fitted.version

    @property
    def engine(self) -> Engine:
        """What computes it."""
        return self.fitted.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an engine may take. host_free, device: ask for free memory; None from them means unknown."""

    slots: int
    max_rows: int
    headroom_bytes: int
    host_free: FreeBytes
    device: DeviceAsked


class Loader:
    """Loads versions of one store.

    Args:
        store: the model's folder.
        make: an engine from the path of a version's model and its card; raises what it likes.
        room: how much memory there is, and must stay.
        clock: monotonic.
        timed: is told the seconds of each phase.
        probe: called at `MODEL_PROBES`.
    """

    def __init__(
        self,
        *,
        store: Path,
        make: Callable[[Path, EngineCard], Engine],
        room: Room,
        clock: Clock,
        timed: Callable[[Phase, float], None] = lambda _phase, _seconds: None,
        probe: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._make = make
        self._room = room
        self._clock = clock
        self.timed = timed
        self._probe = probe

    def load(self, version: VersionId, like: EngineSpec | None = None) -> Loaded:
        """The engine of `version`, proved and warm. `like`: the serving engine's; inputs must be the same.

        Raises `RefusedError`, and then nothing of it is left in memory; `FatalEngineError` if no engine can work any more.
        """
        try:
            return self._load(version, like)
        except (FatalEngineError, RefusedError):
            raise
        except NoRoomError as error:
            raise RefusedError(str(error), passing=True) from error
        except Exception as error:  # whatever a broken version makes a runtime raise, it stops nothing else
            raise RefusedError(f"{error}" or type(error).__name__) from error

    def device_memory(self) -> DeviceMemory | None:
        """The accelerator's memory now; None if there is none, or it doesn't tell."""
        return self._room.device()

    def has_headroom(self) -> bool:
        """Whether what must stay free is free now."""
        try:
            self._require(0, 0)
        except NoRoomError:
            return False
        return True

    def _load(self, version: VersionId, like: EngineSpec | None) -> Loaded:
        with self._phase(Phase.CHECK):
            opened = at_low_priority(lambda: open_version(self._store, version.name))
            if opened.digest != version.digest:
                raise RefusedError(f"its digest is {opened.digest}, expected {version.digest}; it was published again")
        self._probe("model_checked")
        card, room = opened.card, self._room
        with self._phase(Phase.ROOM):
            size = model_bytes(opened.folder)
            host = needed_bytes(size, card, slots=room.slots, max_rows=room.max_rows)
            self._require(host, _device_bytes(card))
        with self._phase(Phase.LOAD):
            engine = self._make(opened.model, card)
        try:
            self._probe("model_loaded")
            return self._prove(engine, card, version, like)
        except BaseException:
            engine.close()
            raise

    def _prove(self, engine: Engine, card: EngineCard, version: VersionId, like: EngineSpec | None) -> Loaded:
        if like is not None and dict(engine.spec.inputs) != dict(like.inputs):
            raise RefusedError(
                f"inputs: got {dict(engine.spec.inputs)}, the serving version has {dict(like.inputs)}; "
                "a version with other inputs can be taken up by a restart only"
            )
        with self._phase(Phase.PROVE):
            at_low_priority(lambda: prove(engine, card))
        self._probe("model_proven")
        with self._phase(Phase.WARM):
            full_batch_s = at_low_priority(lambda: warm(engine, card, self._clock))
        self._probe("model_warm")
        return Loaded(fitted=Fitted(engine, version, reference_of(card)), full_batch_s=full_batch_s)

    def _require(self, host_bytes: int, device_bytes: int) -> None:
        room = self._room
        require_room("host", host_bytes, room.host_free(), room.headroom_bytes)
        device = room.device()
        if device is not None:
            require_room("device", device_bytes, device.free_bytes, room.headroom_bytes)

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        began_s = self._clock()
        try:
            yield
        finally:
            self.timed(phase, self._clock() - began_s)


def _device_bytes(card: EngineCard) -> int:
    """The most that any plan of the version takes on a device, bytes; which one fits is known once it is loaded."""
    return max(((plan.device_memory_bytes or 0) + plan.size_bytes for plan in card.plans), default=0)
