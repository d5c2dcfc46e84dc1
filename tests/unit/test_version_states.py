import itertools
from pathlib import Path

import pytest

from worker.version_states import EDGES, MEANING, IllegalMoveError, State, diagram, moved

DOC = Path(__file__).parents[2] / "docs" / "hot-swap.md"
LEGAL = [(before, to) for before, edges in EDGES.items() for to in edges]
ILLEGAL = [pair for pair in itertools.product(State, State) if pair not in LEGAL]


@pytest.mark.parametrize(("before", "to"), LEGAL)
def test_edges_of_the_table_are_gone(before: State, to: State) -> None:
    assert moved(before, to) is to


@pytest.mark.parametrize(("before", "to"), ILLEGAL)
def test_all_others_are_refused(before: State, to: State) -> None:
    with pytest.raises(IllegalMoveError, match=f"from {before} to {to}"):
        moved(before, to)


@pytest.mark.parametrize("to", State)
def test_a_version_starts_loading(to: State) -> None:
    if to is State.LOADING:
        assert moved(None, to) is to
    else:
        with pytest.raises(IllegalMoveError, match="nowhere"):
            moved(None, to)


def test_nothing_serves_that_was_not_proven() -> None:
    """Every way from LOADING to SERVING goes over PROVEN."""
    reached, waiting = set(), [State.LOADING]
    while waiting:
        state = waiting.pop()
        for to in EDGES[state]:
            if to is not State.PROVEN and to not in reached:
                reached.add(to)
                waiting.append(to)
    assert reached <= {State.REFUSED, State.LOADING}


def test_every_state_has_a_meaning_and_edges() -> None:
    assert set(MEANING) == set(EDGES) == set(State)


def test_the_diagram_of_the_documentation_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}```\n" in DOC.read_text(encoding="utf-8")


def test_the_diagram_shows_every_edge() -> None:
    lines = diagram().splitlines()
    assert all(any(f"{before.name} --> {to.name}: " in line for line in lines) for before, to in LEGAL)
