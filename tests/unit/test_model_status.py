from __future__ import annotations

from types import MappingProxyType

import pytest

from worker.model_status import LOAD_BOUNDS_S, ModelStatus, Outcome, Phase, by_name, counted
from worker.version_choice import Rule, VersionId
from worker.version_states import State

V1, V2 = (VersionId(f"v{n}", f"{n}" * 64) for n in (1, 2))
OLD_V2 = VersionId("v2", "9" * 64)


def test_the_version_of_a_role_is_found() -> None:
    status = ModelStatus(states={V1: State.BACKUP, V2: State.SERVING})
    assert (status.version_in(State.SERVING), status.version_in(State.BACKUP)) == (V2, V1)
    assert status.version_in(State.SHADOW) is None


def test_readiness_shows_what_a_person_needs() -> None:
    status = ModelStatus(
        states={V2: State.SERVING, V1: State.BACKUP},
        refused={OLD_V2: "truncated"},
        unreadable={"v0": "isn't JSON"},
        quarantined={V1: "drifts (by ana)"},
        rule=Rule.PIN,
        notes=("one",),
    )
    assert status.detail == {
        "versions": {"v1": "backup", "v2": "serving"},
        "chosen_by": "pin",
        "refused": {"v2": "truncated", "v0": "isn't JSON"},
        "quarantined": {"v1": "drifts (by ana)"},
        "notes": ["one"],
    }


def test_two_versions_of_one_name_are_both_shown() -> None:
    """Published anew: the bytes before serve still, and may be what is wrong."""
    assert by_name({V2: "serving", OLD_V2: "refused", V1: "backup"}) == {
        "v1": "backup",
        f"v2 ({'2' * 12})": "serving",
        f"v2 ({'9' * 12})": "refused",
    }


def test_nothing_is_known_at_first() -> None:
    assert ModelStatus().outcomes == dict.fromkeys(Outcome, 0)
    assert ModelStatus().detail["versions"] == {}


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        (0.0, 0),
        (LOAD_BOUNDS_S[0], 0),
        (LOAD_BOUNDS_S[0] + 1e-9, 1),
        (LOAD_BOUNDS_S[-1], len(LOAD_BOUNDS_S) - 1),
        (61.0, -1),
    ],
)
def test_a_phase_is_counted_where_it_belongs_ends_included(seconds: float, place: int) -> None:
    before = MappingProxyType({Phase.LOAD: ((1,) * (len(LOAD_BOUNDS_S) + 1), 5.0)})
    counts, total_s = counted(before, Phase.LOAD, seconds)[Phase.LOAD]
    assert [i for i, count in enumerate(counts) if count == 2] == [place % len(counts)]
    assert total_s == 5.0 + seconds
    assert counted(before, Phase.WARM, seconds)[Phase.LOAD] == before[Phase.LOAD]
