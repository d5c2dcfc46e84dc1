from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.engine_card import EngineCard, Plan
from tests.helpers.cards import card_content, plan_content
from tests.helpers.clock import ManualClock
from tests.helpers.engines import FakeEngine, expected_forecasts
from worker.engine import Forecasts, Slot, Ticket
from worker.errors import ContractError, EngineError, FatalEngineError, OutOfDeviceMemoryError
from worker.proving import (
    TIMED_RUNS,
    ProofError,
    TooSlowError,
    compute,
    golden_columns,
    prove,
    prove_sizes,
    refused_unless_proved,
    sizes,
    warm,
)

INPUTS = {"sales": 3, "price": None}
QUANTILES = (0.1, 0.9)
PROFILES = [{"min_rows": 1, "opt_rows": 4, "max_rows": 8}]
GOLDEN = {"sales": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.0, 0.0, 9.0]], "price": [1.0, 2.0, 3.0]}


def engine(max_rows: int = 8, **options: Any) -> FakeEngine:
    return FakeEngine(INPUTS, horizon=2, quantiles=QUANTILES, max_rows=max_rows, **options)


def card(*, wrong_at: tuple[int, int, int] | None = None, by: float = 0.1, **changed: Any) -> EngineCard:
    """The fake engine's own outputs as the golden ones; one of them wrong by `by`."""
    columns = {name: np.asarray(values, np.float32) for name, values in GOLDEN.items()}
    outputs = expected_forecasts(columns, 3, horizon=2, quantiles=QUANTILES)
    if wrong_at is not None:
        outputs[wrong_at] += by
    golden = {"inputs": GOLDEN, "outputs": outputs.tolist(), "relative_tolerance": 0.0, "absolute_tolerance": 0.01}
    profile = {"min_rows": 1, "opt_rows": 4, "max_rows": 64}
    return EngineCard.model_validate(card_content(golden=golden, profile=profile, **changed))


def plan(**changed: Any) -> Plan:
    return Plan.model_validate(plan_content(**changed))


class Crossed(FakeEngine):
    """Every slot is handed the forecasts of the slot that was submitted first."""

    _first: Slot | None = None

    def submit(self, slot: Slot, rows: int) -> Ticket:
        if self._first is None or not self.outstanding:
            self._first = slot
        return super().submit(slot, rows)

    def collect(self, ticket: Ticket) -> Forecasts:
        assert self._first is not None
        for name, column in ticket.slot.columns.items():
            column[:] = self._first.columns[name]
        return super().collect(ticket)


# -- the golden batch -------------------------------------------------------------------------------------------------


def test_golden_rows_are_float32_as_the_engine_takes_them() -> None:
    columns = golden_columns(card())
    assert {name: (column.dtype, column.shape) for name, column in columns.items()} == {
        "sales": (np.dtype(np.float32), (3, 3)),
        "price": (np.dtype(np.float32), (3,)),
    }


@pytest.mark.parametrize("max_rows", [1, 2, 3, 8])
def test_an_engine_that_does_what_the_card_says_is_proved_in_parts_that_fit(max_rows: int) -> None:
    proved = engine(max_rows)
    prove(proved, card())
    assert sum(proved.submitted_rows) == 3
    assert max(proved.submitted_rows) == min(max_rows, 3)
    assert proved.free == 2


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 1, 1)])
@pytest.mark.parametrize("max_rows", [1, 8])
def test_one_wrong_number_is_told_with_place_got_and_expected(place: tuple[int, int, int], max_rows: int) -> None:
    row, day, quantile = place
    with pytest.raises(ProofError, match=r"golden batch: row") as raised:
        prove(engine(max_rows), card(wrong_at=place))
    assert f"day {day}, quantile {quantile}: got " in str(raised.value)
    assert "within 0.01; 1 of " in str(raised.value)
    assert max_rows == 1 or f"row {row}, " in str(raised.value)


def test_within_the_tolerance_is_right_and_beyond_it_wrong() -> None:
    prove(engine(), card(wrong_at=(0, 0, 0), by=0.0099))
    with pytest.raises(ProofError):
        prove(engine(), card(wrong_at=(0, 0, 0), by=0.0101))


def test_the_relative_tolerance_is_of_the_expected_number() -> None:
    content = card(wrong_at=(1, 0, 0), by=0.5)
    golden = content.golden.model_copy(update={"relative_tolerance": 0.1, "absolute_tolerance": 0.0})
    prove(engine(), content.model_copy(update={"golden": golden}))  # 7.1 + 0.5, a tenth of it allowed
    small = card(wrong_at=(1, 0, 0), by=0.9)
    with pytest.raises(ProofError):
        prove(
            engine(), small.model_copy(update={"golden": golden.model_copy(update={"outputs": small.golden.outputs})})
        )


def test_a_plans_tolerances_count_for_its_engine_only() -> None:
    content = card(
        wrong_at=(0, 0, 0), by=0.1
    )  # which needn't name the plan yet: it may have been built since it was read
    prove(engine(plan=plan(absolute_tolerance=0.2, relative_tolerance=0.0)), content)
    with pytest.raises(ProofError):
        prove(engine(), content)


class NotANumber(FakeEngine):
    def collect(self, ticket: Ticket) -> Any:
        found = super().collect(ticket)
        found.values[0, 0, 0] = np.nan
        return found


def test_what_is_no_number_is_wrong() -> None:
    broken = NotANumber(INPUTS, horizon=2, quantiles=QUANTILES)
    with pytest.raises(ProofError, match="golden batch: row 0, day 0, quantile 0: got nan, expected"):
        prove(broken, card())


def test_another_shape_is_wrong() -> None:
    with pytest.raises(ProofError, match=r"golden batch: got shape \(3, 5, 2\), expected \(3, 2, 2\)"):
        prove(FakeEngine(INPUTS, horizon=5, quantiles=QUANTILES), card())


# -- computing --------------------------------------------------------------------------------------------------------


def test_a_result_is_a_copy_that_outlives_its_slot() -> None:
    used = engine(slots=1)
    first = compute(used, golden_columns(card()), 3)
    before = first.copy()
    compute(used, {name: column + 1 for name, column in golden_columns(card()).items()}, 3)
    np.testing.assert_array_equal(first, before)


def test_one_slot_is_used_and_given_back() -> None:
    used = engine(slots=4)
    compute(used, golden_columns(card()), 3)
    assert (len(used.submitted_rows), used.free) == (1, 4)


def test_without_a_free_slot_it_is_an_error() -> None:
    used = engine(slots=1)
    used.acquire()
    with pytest.raises(EngineError, match="no slot is free"):
        compute(used, golden_columns(card()), 3)


def test_a_slot_that_is_handed_another_ones_forecasts_is_found_out() -> None:
    crossed = Crossed(INPUTS, horizon=2, quantiles=QUANTILES, max_rows=8, plan=plan())
    prove(crossed, card())
    with pytest.raises(ProofError, match="batch of 1 rows"):
        prove_sizes(crossed, card())
    assert crossed.free == 2


@pytest.mark.parametrize("where", ["fail_submit", "fail_collect"])
@pytest.mark.parametrize("error", [EngineError("broken"), FatalEngineError("lost")])
def test_a_batch_that_fails_leaves_every_slot_free(where: str, error: EngineError) -> None:
    used = engine(slots=2, plan=plan())
    setattr(used, where, [None, error])
    with pytest.raises(type(error), match=str(error)):
        prove_sizes(used, card())
    assert used.free == 2


def test_a_batch_that_never_comes_back_is_an_error_and_its_slot_stays_with_the_engine() -> None:
    class Lost(FakeEngine):
        def release(self, slot: Slot) -> None:
            if self.outstanding:
                raise ValueError("the engine's until its ticket was collected")
            super().release(slot)

    used = Lost(INPUTS, horizon=2, quantiles=QUANTILES, asynchronous=True)
    with pytest.raises(EngineError, match="3 rows weren't computed within 60 s"):
        compute(used, golden_columns(card()), 3)


# -- sizes and time ---------------------------------------------------------------------------------------------------


def test_sizes_are_the_profiles_ends_its_usual_size_and_the_batchs_limit() -> None:
    assert sizes(card(), engine(max_rows=32)) == [1, 4, 32]
    assert sizes(card(), engine(max_rows=3)) == [1, 3]


def test_a_plans_profiles_and_graphs_count_for_its_engine() -> None:
    profiles = [{"min_rows": 1, "opt_rows": 2, "max_rows": 16}, {"min_rows": 17, "opt_rows": 24, "max_rows": 64}]
    planned = engine(max_rows=32, plan=plan(profiles=profiles, cuda_graph_rows=[8, 48]))
    assert sizes(card(), planned) == [1, 2, 8, 16, 17, 24, 32]
    assert sizes(card(), engine(max_rows=32)) == [1, 4, 32]


@pytest.mark.parametrize(("runs", "times"), [(None, 1), (plan(profiles=PROFILES, cuda_graph_rows=[]), 3)])
def test_every_size_is_run_in_every_slot_of_a_plan_and_a_full_batch_some_times(runs: Plan | None, times: int) -> None:
    used = engine(max_rows=8, slots=3, plan=runs)
    warm(used, card(), ManualClock())
    assert used.submitted_rows == [rows for rows in (1, 4, 8) for _ in range(times)] + [8] * TIMED_RUNS
    assert used.free == 3


class WrongIn(FakeEngine):
    """The slot with this index gives one row alone wrong."""

    def __init__(self, index: int, **options: Any) -> None:
        super().__init__(INPUTS, horizon=2, quantiles=QUANTILES, slots=3, **options)
        self._index = index

    def collect(self, ticket: Ticket) -> Any:
        found = super().collect(ticket)
        if (ticket.rows, ticket.slot.index) == (1, self._index):
            found.values[:] += 1.0
        return found


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_one_slot_of_a_plan_gets_wrong_is_found(index: int) -> None:
    with pytest.raises(ProofError, match="batch of 1 rows: row 0"):
        prove_sizes(WrongIn(index, plan=plan()), card())


class Slow(FakeEngine):
    """Takes the next of `seconds` for each full batch."""

    def __init__(self, clock: ManualClock, *seconds: float) -> None:
        super().__init__(INPUTS, horizon=2, quantiles=QUANTILES, max_rows=8, slots=1)
        self._clock = clock
        self._seconds = list(seconds)

    def submit(self, slot: Slot, rows: int) -> Ticket:
        if len(self.submitted_rows) >= 3:  # the sizes went before
            self._clock.advance(self._seconds.pop(0))
        return super().submit(slot, rows)


def test_the_shortest_time_of_a_full_batch_counts() -> None:
    clock = ManualClock()
    assert warm(Slow(clock, 0.5, 0.02, 0.5), card(latency_budget_ms=20.5), clock) == pytest.approx(0.02)


def test_too_slow_for_the_cards_budget_is_told_with_both_figures() -> None:
    clock = ManualClock()
    with pytest.raises(
        TooSlowError, match=r"latency: 8 rows took 30\.0 ms \(the best of 24\), the card's budget is 20 ms"
    ):
        warm(Slow(clock, *(0.05,) * 23, 0.03), card(latency_budget_ms=20.0), clock)


def test_without_a_budget_any_time_will_do() -> None:
    clock = ManualClock()
    assert warm(Slow(clock, 100.0, 100.0, 100.0), card(), clock) == pytest.approx(100.0)


class Mixing(FakeEngine):
    """Its rows depend on how many there are."""

    def collect(self, ticket: Ticket) -> Any:
        found = super().collect(ticket)
        if ticket.rows > 3:
            found.values[-1] += 1.0
        return found


def test_a_row_that_depends_on_its_neighbours_is_told_with_the_size() -> None:
    mixing = Mixing(INPUTS, horizon=2, quantiles=QUANTILES)
    prove(mixing, card())
    with pytest.raises(ProofError, match="batch of 4 rows: row 3, day 0, quantile 0: got"):
        warm(mixing, card(), ManualClock())


# -- an engine that nothing takes the place of ------------------------------------------------------------------------


def test_what_is_proved_stays_open() -> None:
    sound = engine()
    with refused_unless_proved(sound, "engine.model"):
        prove(sound, card())
    assert not sound.closed


@pytest.mark.parametrize(
    ("error", "runs", "remedy"),
    [
        (
            ProofError("got 1, expected 2"),
            plan(),
            'build the plan anew with `engine-build build`, or set engine.runtime to "onnx"',
        ),
        (ProofError("got 1, expected 2"), None, "publish the model anew, together with its card"),
        (EngineError("no kernel"), None, "publish the model anew, together with its card"),
        (
            TooSlowError("30 ms, expected 20 ms"),
            plan(),
            "lower batching.max_rows, use a faster machine, or publish the model with another latency_budget_ms",
        ),
    ],
)
def test_what_is_not_proved_is_closed_and_refused_with_a_remedy(
    error: Exception, runs: Plan | None, remedy: str
) -> None:
    wrong = engine(plan=runs)
    with pytest.raises(ContractError) as raised, refused_unless_proved(wrong, "engine.backup"):
        raise error
    what = "its ONNX file" if runs is None else runs.file
    assert str(raised.value) == f"engine.backup: fake 1, {what}, doesn't do what its card says: {error}; {remedy}"
    assert (raised.value.exit_code, raised.value.__cause__, wrong.closed) == (2, error, True)


@pytest.mark.parametrize(
    "error",
    [EngineError("not back"), OutOfDeviceMemoryError("full"), FatalEngineError("lost"), SystemExit(1), ValueError()],
)
def test_what_says_nothing_of_the_model_goes_on_up_and_the_engine_is_closed(error: BaseException) -> None:
    used = engine(plan=plan())
    with pytest.raises(type(error)) as raised, refused_unless_proved(used, "engine.model"):
        raise error
    assert raised.value is error
    assert used.closed
