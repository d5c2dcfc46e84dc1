"""What may become of a model version in this worker: states and edges as a table, and the diagram drawn from it.  (pure)"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a version stands. The values are what metrics, `/ready` and `forecast-worker models` show."""

    LOADING = "loading"
    PROVEN = "proven"
    SHADOW = "shadow"
    SERVING = "serving"
    BACKUP = "backup"
    RETIRED = "retired"
    REFUSED = "refused"


MEANING: Mapping[State, str] = {
    State.LOADING: "its files are checked, memory is looked for, its engine is made",
    State.PROVEN: "it gives the golden batch's outputs, in time, at every size; it waits for its turn",
    State.SHADOW: "it computes a share of the live batches beside the serving version; nothing of it is published",
    State.SERVING: "its forecasts are published",
    State.BACKUP: "it stays loaded and takes over when the serving version must go",
    State.RETIRED: "it gets no more batches; its engine is closed after the last one",
    State.REFUSED: "it isn't tried again until its bytes change; why is remembered",
}

EDGES: Mapping[State, Mapping[State, str]] = {
    State.LOADING: {
        State.PROVEN: "golden batch, sizes and latency hold",
        State.REFUSED: "a check fails",
    },
    State.PROVEN: {
        State.SHADOW: "shadow is on and CURRENT names it",
        State.SERVING: "between two batches",
        State.BACKUP: "it is the version before the serving one",
        State.RETIRED: "no longer wanted",
    },
    State.SHADOW: {
        State.SERVING: "within bounds after enough rows, or promoted",
        State.REFUSED: "outside a bound",
        State.RETIRED: "no longer wanted",
    },
    State.SERVING: {
        State.BACKUP: "another version takes over",
        State.RETIRED: "rolled back, quarantined, or no memory to keep it",
    },
    State.BACKUP: {
        State.SERVING: "the serving version goes, or it is chosen again",
        State.RETIRED: "a newer backup, quarantined, or memory is needed",
    },
    State.RETIRED: {
        State.LOADING: "chosen again",
    },
    State.REFUSED: {
        State.LOADING: "its bytes changed, or memory may be free again",
    },
}
"""From -> to -> when. What isn't here can't happen."""


class IllegalMoveError(Exception):
    """A version was to go where the table has no edge. A bug of ours; the engines are left as they are."""


def moved(before: State | None, to: State) -> State:
    """`to`, if the table allows it after `before` (None: a version not seen yet, which starts LOADING)."""
    allowed = {State.LOADING} if before is None else EDGES[before].keys()
    if to not in allowed:
        raise IllegalMoveError(
            f"a version can't go from {before or 'nowhere'} to {to}; expected one of {sorted(allowed)}"
        )
    return to


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/hot-swap.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.LOADING.name}: chosen"]
    lines += [f"    {state.name}: {state.name}<br/>{meaning}" for state, meaning in MEANING.items()]
    lines += [
        f"    {before.name} --> {to.name}: {when}" for before, edges in EDGES.items() for to, when in edges.items()
    ]
    return "\n".join(lines) + "\n"
