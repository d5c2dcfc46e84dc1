from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine_build.choice import MIN_GAIN, ORDER, Candidate, choose

SPEEDS = st.floats(1.0, 1e7)


MAYBE_SPEEDS = st.one_of(st.none(), SPEEDS)


@st.composite
def candidates(draw: st.DrawFn, speeds: st.SearchStrategy[float | None] = MAYBE_SPEEDS) -> list[Candidate]:
    precisions = draw(st.lists(st.sampled_from(ORDER), unique=True))
    problems = st.sampled_from([(), ("accuracy",)])
    return [Candidate(precision=each, problems=draw(problems), rows_per_s=draw(speeds)) for each in precisions]


@given(candidates())
def test_only_what_passes_is_published_and_something_is_if_anything_passes(given_: list[Candidate]) -> None:
    decision = choose(given_)
    passing = {each.precision for each in given_ if not each.problems}
    assert set(decision.published) <= passing
    assert bool(decision.published) == bool(passing)


@given(candidates(SPEEDS))
def test_nothing_faster_that_passes_is_left_out_beyond_the_margin(given_: list[Candidate]) -> None:
    decision = choose(given_)
    speed = {each.precision: each.rows_per_s or 0.0 for each in given_ if not each.problems}
    for chosen in decision.published:
        for other, rows_per_s in speed.items():
            assert rows_per_s < speed[chosen] * (1 + MIN_GAIN) * (1 + 1e-9)
            if ORDER.index(other) < ORDER.index(chosen):  # less precision was worth it
                assert speed[chosen] >= rows_per_s * (1 + MIN_GAIN) * (1 - 1e-9) or len(speed) > 2


@given(candidates(), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(given_: list[Candidate], random: object) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose(shuffled).published == choose(given_).published


@given(candidates())
def test_everyone_who_is_out_is_named_with_the_reason(given_: list[Candidate]) -> None:
    decision = choose(given_)
    for each in given_:
        if each.problems:
            assert f"{each.precision} is out: accuracy" in decision.reasons
