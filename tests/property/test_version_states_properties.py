"""A version's life under any wishes of the loader: only edges of the table are gone, and a refusal changes nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from worker.bulletin import Bulletin
from worker.control import WorkerState
from worker.handover import Handover
from worker.version_choice import VersionId
from worker.version_states import EDGES, IllegalMoveError, State, moved

VERSIONS = [VersionId(f"v{number}", f"{number}" * 64) for number in range(3)]
IN_MEMORY = {State.LOADING, State.PROVEN, State.SHADOW, State.SERVING, State.BACKUP}


class Lives(RuleBasedStateMachine):
    """Several versions of one worker; the machine keeps its own book of where each stands and has been."""

    @initialize()
    def start(self) -> None:
        self.told: list[WorkerState] = []
        self.bulletin = Bulletin("tiny", "w", Handover(), self.told.append)
        self.bulletin.starts_with(VERSIONS[0])
        self.stands: dict[VersionId, State] = {VERSIONS[0]: State.SERVING}
        self.lives: dict[VersionId, list[State]] = {VERSIONS[0]: [State.LOADING, State.PROVEN, State.SERVING]}

    @rule(version=st.sampled_from(VERSIONS), to=st.sampled_from(State))
    def move(self, version: VersionId, to: State) -> None:
        before = self.stands.get(version)
        legal = {State.LOADING} if before is None else EDGES[before].keys()
        if to in legal:
            self.bulletin.move(version, to)
            self.stands[version] = to
            self.lives.setdefault(version, []).append(to)
        else:
            with pytest.raises(IllegalMoveError, match=f"to {to}; expected one of"):
                self.bulletin.move(version, to)

    @rule(version=st.sampled_from(VERSIONS), data=st.data())
    def go_on(self, version: VersionId, data: st.DataObject) -> None:
        """A legal step, so that long lives are common."""
        before = self.stands.get(version)
        self.move(version, data.draw(st.sampled_from(sorted(EDGES[before] if before else {State.LOADING}))))

    @rule(there=st.sets(st.sampled_from(VERSIONS)))
    def forget(self, there: set[VersionId]) -> None:
        self.bulletin.forget(there)
        for version, state in list(self.stands.items()):
            if version not in there and state not in IN_MEMORY:
                del self.stands[version]
                del self.lives[version]

    @invariant()
    def each_stands_where_its_last_legal_move_led(self) -> None:
        assert {version: self.bulletin.state(version) for version in VERSIONS} == {
            version: self.stands.get(version) for version in VERSIONS
        }

    @invariant()
    def no_edge_was_gone_that_the_table_does_not_have(self) -> None:
        for life in self.lives.values():
            assert life[0] is State.LOADING
            assert all(to in EDGES[before] for before, to in pairwise(life))

    @invariant()
    def nothing_serves_backs_up_or_is_tried_that_was_not_proved_since_it_was_loaded(self) -> None:
        for life in self.lives.values():
            for place, state in enumerate(life):
                if state in {State.SERVING, State.BACKUP, State.SHADOW}:
                    loaded = max(at for at in range(place) if life[at] is State.LOADING)
                    assert State.PROVEN in life[loaded:place]

    @invariant()
    def what_was_refused_or_retired_comes_back_by_loading_only(self) -> None:
        for life in self.lives.values():
            for before, to in pairwise(life):
                if before in {State.REFUSED, State.RETIRED}:
                    assert to is State.LOADING


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from(State), max_size=30))
def test_a_refused_move_leaves_a_version_where_it_was(wishes: list[State]) -> None:
    stands: State | None = None
    for wish in wishes:
        legal = {State.LOADING} if stands is None else set(EDGES[stands])
        try:
            stands = moved(stands, wish)
        except IllegalMoveError:
            assert wish not in legal
        else:
            assert (stands, wish in legal) == (wish, True)
