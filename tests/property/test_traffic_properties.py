from hypothesis import given
from hypothesis import strategies as st

from engine_build.traffic import parse_profile, propose, rounded_up, sizes_of

SIZES = st.lists(st.integers(1, 100_000), min_size=1, max_size=200)


@given(SIZES, SIZES, st.one_of(st.none(), st.integers(1, 50_000)))
def test_every_proposal_prints_as_what_is_parsed_to_it(demand: list[int], batches: list[int], room: int | None) -> None:
    memory = None if room is None else (room * 10, 10)
    proposal = propose(sizes_of(demand), sizes_of(batches), memory=memory)
    assert parse_profile(str(proposal)) == proposal
    assert room is None or proposal.profile.max_rows <= room
    most = proposal.profile.max_rows
    assert all(rows in {64, 128, 256, 512, min(most, 64)} and rows <= most for rows in proposal.cuda_graph_rows)


@given(st.floats(0.1, 1e6))
def test_rounding_up_never_loses_rows_and_adds_little(rows: float) -> None:
    rounded = rounded_up(rows)
    assert rows <= rounded <= max(rows * 1.25 + 1, rows + 8)
    assert rounded <= 8 or rounded % 8 == 0


@given(SIZES)
def test_max_holds_at_least_ninety_nine_percent_of_the_windows(demand: list[int]) -> None:
    most = propose(sizes_of(demand)).profile.max_rows
    assert sum(rows <= most for rows in demand) >= 0.99 * len(demand)
