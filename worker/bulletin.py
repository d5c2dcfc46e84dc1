"""What the loader's thread lets others see: each version's state, counts and times, in a value that never changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from worker.control import WorkerState
from worker.handover import Handover
from worker.model_status import DeviceMemory, Difference, ModelStatus, Outcome, Phase, counted
from worker.store_listing import StoreView
from worker.version_choice import Choice, VersionId
from worker.version_states import State, moved

_IN_MEMORY = frozenset({State.LOADING, State.PROVEN, State.SHADOW, State.SERVING, State.BACKUP})


class Bulletin:
    """Keeps the state of every version, moves it along the table only, and publishes all of it.

    Args:
        model, worker: names, for the fleet.
        handover: `status` is written there.
        tell: is given this worker's state whenever it has changed.
    """

    def __init__(self, model: str, worker: str, handover: Handover, tell: Callable[[WorkerState], None]) -> None:
        self._model = model
        self._worker = worker
        self._handover = handover
        self._tell = tell
        self._states: dict[VersionId, State] = {}
        self._told: WorkerState | None = None

    def starts_with(self, version: VersionId) -> None:
        """`version` was proved and serves before anything else happens."""
        for state in (State.LOADING, State.PROVEN, State.SERVING):
            self.move(version, state)

    def state(self, version: VersionId) -> State | None:
        """Where `version` stands; None: it wasn't seen yet."""
        return self._states.get(version)

    def move(self, version: VersionId, to: State) -> None:
        """`version` goes on to `to`. Raises `IllegalMoveError` where the table has no edge."""
        self._states[version] = moved(self._states.get(version), to)

    def count(self, outcome: Outcome) -> None:
        """An attempt to change versions ended so."""
        outcomes = self._handover.status.outcomes
        self._write(outcomes=MappingProxyType({**outcomes, outcome: outcomes[outcome] + 1}))

    def timed(self, phase: Phase, seconds: float) -> None:
        """A phase of loading took so long."""
        self._write(loads=counted(self._handover.status.loads, phase, seconds))

    def forget(self, there: Collection[VersionId]) -> None:
        """What is neither in the store (`there`) nor in memory needs none here."""
        self._states = {
            version: state for version, state in self._states.items() if version in there or state in _IN_MEMORY
        }

    def publish(
        self,
        view: StoreView,
        choice: Choice,
        *,
        quarantined: Mapping[VersionId, str],
        shadow: Difference | None,
        held: str | None,
        device: DeviceMemory | None,
    ) -> None:
        """Show everything as it is now; tell the fleet if what concerns it has changed."""
        self._write(
            states=MappingProxyType(dict(self._states)),
            refused=MappingProxyType(view.refused),
            unreadable=MappingProxyType(view.unreadable),
            quarantined=MappingProxyType(dict(quarantined)),
            rule=choice.rule,
            notes=(*choice.notes, *([view.problem] if view.problem else [])),
            shadow=shadow,
            device=device,
        )
        self._tell_fleet(self._handover.status, held)

    def _tell_fleet(self, status: ModelStatus, held: str | None) -> None:
        serving, backup, shadow = (status.version_in(state) for state in (State.SERVING, State.BACKUP, State.SHADOW))
        if serving is None:
            return  # the last resort serves: no version of the store
        state = WorkerState(
            model=self._model,
            worker=self._worker,
            serving=serving,
            backup=None if backup is None else backup.name,
            shadow=None if shadow is None else shadow.name,
            held=held,
            refused={**{version.name: reason for version, reason in status.refused.items()}, **status.unreadable},
            notes=status.notes,
            at_ms=0,  # whoever sends it says when
        )
        if state != self._told:
            self._told = state
            self._tell(state)

    def _write(self, **changes: object) -> None:
        self._handover.status = replace(self._handover.status, **changes)  # type: ignore[arg-type]
