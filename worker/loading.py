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
from worker.errors import FatalEngineError, OutOfDeviceMemoryError
from worker.guard_reference import reference_of
from worker.handover import Fitted
from worker.low_priority import at_low_priority
from worker.memory_room import (
    DeviceAsked,
    FreeBytes,
    NoRoomError,
    needed_bytes,
    require_room,
    stated_device_bytes,
)
from worker.model_status import DeviceMemory, Phase
from worker.proving import ProofError, prove, warm
from worker.store_listing import model_bytes
from worker.version_choice import VersionId

MODEL_PROBES = (
    "model_checked",
    "model_loaded",
    "model_proven",
    "model_warm",
    "model_handed_over",
    "model_taken",
    "model_turned",
    "model_closing",
    "model_freed",
)
"""Points on a version's way where tests stop the process, in their order."""
LEAVING_PROBES = ("model_left", "control_writing", "control_written")
"""And on the way of one that is left: the backup has taken over; before and after the fleet is told."""


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

    def close(self) -> None:
        """Free its engine and its stand-by."""
        self.fitted.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an engine may take. host_free, device: ask for free memory; None from them means unknown.

    device_bytes: what a version takes on the device, by its card.
    """

    slots: int
    max_rows: int
    headroom_bytes: int
    host_free: FreeBytes
    device: DeviceAsked
    device_bytes: Callable[[EngineCard], int] = stated_device_bytes


class Loader:
    """Loads versions of one store.

    Args:
        store: the model's folder.
        make: an engine from the path of a version's model and its card; raises what it likes.
        make_standby: the stand-by for the engine that was made of it, None if it needs none; likewise.
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
        make_standby: Callable[[Path, EngineCard, Engine], Engine | None] = lambda _path, _card, _engine: None,
    ) -> None:
        self._store = store
        self._make = make
        self._make_standby = make_standby
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
        except (NoRoomError, OutOfDeviceMemoryError) as error:
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
            self._require(host, room.device_bytes(card))
        fitted = self._made(opened.model, card, version)
        try:
            self._probe("model_loaded")
            return self._prove(fitted, card, like)
        except BaseException:
            fitted.close()
            raise

    def _made(self, model: Path, card: EngineCard, version: VersionId) -> Fitted:
        with self._phase(Phase.LOAD):
            engine = self._make(model, card)
            try:
                standby = self._make_standby(model, card, engine)
            except BaseException:
                engine.close()
                raise
        return Fitted(engine, version, reference_of(card), standby)

    def _prove(self, fitted: Fitted, card: EngineCard, like: EngineSpec | None) -> Loaded:
        engine, standby = fitted.engine, fitted.standby
        if like is not None and dict(engine.spec.inputs) != dict(like.inputs):
            raise RefusedError(
                f"inputs: got {dict(engine.spec.inputs)}, the serving version has {dict(like.inputs)}; "
                "a version with other inputs can be taken up by a restart only"
            )
        with self._phase(Phase.PROVE):
            at_low_priority(lambda: prove(engine, card))
            if standby is not None:
                _prove_standby(standby, card)
        self._probe("model_proven")
        with self._phase(Phase.WARM):
            full_batch_s = at_low_priority(lambda: warm(engine, card, self._clock))
        self._probe("model_warm")
        return Loaded(fitted=fitted, full_batch_s=full_batch_s)

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


def _prove_standby(standby: Engine, card: EngineCard) -> None:
    try:
        at_low_priority(lambda: prove(standby, card))
    except ProofError as error:
        raise RefusedError(f"its stand-by: {error}") from error
