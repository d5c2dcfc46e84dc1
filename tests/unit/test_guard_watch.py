from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.engines import FakeEngine
from worker.engine import EngineSpec
from worker.guard import Rule
from worker.guard_reference import EDGES, Reference
from worker.guard_watch import BEYOND_USUAL, Figure, Guard, Trip
from worker.settings_guard import GuardSettings

LIMITS = GuardSettings(window_rows=400, least_rows=50, full_rows=100)
SPEC = FakeEngine({"sales": 28}, horizon=14).spec
OTHER = replace(SPEC, digest="ee" * 32)
RANDOM = np.random.default_rng(3)
WEEK = np.array([1, 2, 3, 4, 5, 9, 8], np.float32)


def shares_around(middle: float) -> NDArray[np.float64]:
    weights = np.exp(-0.5 * (((EDGES[:-1] + EDGES[1:]) / 2 - middle) / 0.2) ** 2)
    return np.asarray(weights / weights.sum())


REFERENCE = Reference(mean_of="sales", edges=EDGES, shares=shares_around(0.0))


def guard(limits: GuardSettings = LIMITS, reference: Reference = REFERENCE) -> Guard:
    return Guard(limits, {SPEC.digest: reference, OTHER.digest: reference})


def batch(
    rows: int = 100, *, scale: float = 1.0, shift: int = 0
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Sales with a weekday pattern, and forecasts whose log ratio is normal around log(scale) as the reference has it."""
    sales = np.tile(WEEK, 4) * RANDOM.uniform(0.9, 1.1, (rows, 28))
    factor = np.exp(RANDOM.normal(np.log(scale), 0.2, rows)) * sales.mean(axis=1) / WEEK.mean()
    middle = factor[:, None] * np.roll(np.tile(WEEK, 2), shift)
    values = middle[:, :, None] * np.array([0.5, 1.0, 1.5])
    return {"sales": sales.astype(np.float32)}, values.astype(np.float32)


def shown(watching: Guard, times: int = 1, rows: int = 100, **wrong: float) -> Trip | None:
    trip = None
    for _ in range(times):
        trip = trip or watching.watch(SPEC, *batch(rows, **wrong))  # type: ignore[arg-type]
    return trip


def test_sound_forecasts_pass_for_ever() -> None:
    assert shown(guard(), times=200) is None


@pytest.mark.parametrize(
    ("wrong", "rules"),
    [
        ({"scale": 1.3}, {Rule.SHIFT, Rule.DRIFT}),
        ({"scale": 0.7}, {Rule.SHIFT, Rule.DRIFT}),
        ({"scale": 1e-6}, {Rule.SHIFT}),
        ({"shift": 1}, {Rule.WEEKDAY}),
        ({"shift": -1}, {Rule.WEEKDAY}),
    ],
)
def test_a_wrong_engine_trips_within_the_rows_that_the_limits_hold_for(
    wrong: dict[str, float], rules: set[Rule]
) -> None:
    trip = shown(guard(), **wrong)  # type: ignore[arg-type]
    assert trip is not None
    assert trip.rule in rules
    assert "over the last 100 rows, expected at most" in trip.detail


def test_a_distribution_that_keeps_its_mean_but_not_its_shape_is_a_drift() -> None:
    watching = guard()
    inputs, low = batch(100, scale=0.5)
    _, high = batch(100, scale=2.0)
    mixed = np.where((np.arange(100) % 2 == 0)[:, None, None], low, high)
    trip = watching.watch(SPEC, inputs, mixed)
    assert trip is not None
    assert trip.rule is Rule.DRIFT


def test_too_few_rows_are_not_judged_and_few_ones_less_strictly() -> None:
    watching = guard()
    assert shown(watching, rows=49, scale=3.0) is None
    assert watching.figures() == []
    assert shown(watching, rows=1, scale=3.0) is not None
    few, enough = guard(), guard()
    shown(few, rows=50)
    shown(enough, rows=100)
    for narrow, wide in zip(enough.figures(), few.figures(), strict=True):
        assert wide.allowed == pytest.approx(narrow.allowed * 2**0.5)


def test_rows_with_faults_stay_out_of_the_window() -> None:
    watching = guard()
    inputs, values = batch(100)
    values[:20] = np.nan
    assert watching.watch(SPEC, inputs, values, without=list(range(20))) is None
    assert np.isfinite([figure.got for figure in watching.figures()]).all()


def test_a_card_may_say_that_its_windows_are_usually_far_from_it() -> None:
    wide = replace(REFERENCE, usual_index=10.0)
    drift = {figure.rule: figure for figure in _figures(wide)}[Rule.DRIFT]
    assert drift.allowed == pytest.approx(10.0 * BEYOND_USUAL)
    narrow = {figure.rule: figure for figure in _figures(replace(REFERENCE, usual_index=0.01))}[Rule.DRIFT]
    assert narrow.allowed == LIMITS.drift_index


def _figures(reference: Reference) -> list[Figure]:
    watching = guard(reference=reference)
    shown(watching)
    return watching.figures()


def test_without_a_reference_nothing_is_judged_but_the_rows_themselves() -> None:
    watching = Guard(LIMITS, {})
    inputs, values = batch(100, scale=3.0)
    assert watching.watch(SPEC, inputs, values) is None
    values[3] = -1.0
    assert {row: fault.rule for row, fault in watching.row_faults(SPEC, inputs, values).items()} == {3: Rule.NEGATIVE}


def test_a_reference_may_come_later() -> None:
    watching = Guard(LIMITS, {})
    watching.know(SPEC.digest, REFERENCE)
    assert shown(watching, scale=1.5) is not None


def test_an_explosion_is_measured_by_the_rows_own_history() -> None:
    watching = guard()
    inputs, values = batch(3)
    inputs["sales"][0] = 0.0
    values[0] = LIMITS.explosion_factor * LIMITS.least_sales * 0.99
    values[1] = inputs["sales"][1].max() * LIMITS.explosion_factor * 1.01
    values[2] = np.nan
    found = watching.row_faults(SPEC, inputs, values)
    assert {row: fault.rule for row, fault in found.items()} == {1: Rule.EXPLOSION, 2: Rule.NOT_FINITE}
    values[0] = LIMITS.explosion_factor * LIMITS.least_sales * 1.01
    assert watching.row_faults(SPEC, inputs, values)[0].rule is Rule.EXPLOSION


def test_a_forecast_cannot_be_late_against_histories_without_a_weekday_pattern() -> None:
    watching = guard()
    sales = RANDOM.uniform(2.0, 6.0, (400, 28)).astype(np.float32)
    _, late = batch(400, shift=1)
    watching.watch(SPEC, {"sales": sales}, late)
    assert Rule.WEEKDAY not in {figure.rule for figure in watching.figures()}


# -- from one version to the next --------------------------------------------------------------------------------------


def test_a_new_version_is_held_against_the_one_before_until_its_window_is_full() -> None:
    loose = GuardSettings(window_rows=400, least_rows=50, full_rows=100, drift_index=99.0, shift=9.0)
    watching = guard(loose)
    assert shown(watching, times=4) is None
    trip = watching.watch(OTHER, *batch(100, scale=1.5))
    assert trip is not None
    assert trip.rule is Rule.JUMP
    settled = guard(loose)
    shown(settled, times=4)
    assert all(settled.watch(OTHER, *batch(100)) is None for _ in range(4))
    assert all(settled.watch(OTHER, *batch(100, scale=1.5)) is None for _ in range(4))  # a season, not a swap


def test_it_is_unsure_of_a_new_version_until_it_has_seen_enough_rows_of_it() -> None:
    watching = guard()
    shown(watching, rows=10)
    assert not watching.is_unsure_of(SPEC)  # the first one: nothing was before it
    watching.watch(OTHER, *batch(99))
    assert (watching.is_unsure_of(OTHER), watching.is_unsure_of(SPEC)) == (True, False)
    watching.watch(OTHER, *batch(1))
    assert not watching.is_unsure_of(OTHER)
    watching.watch(SPEC, *batch(1))
    assert watching.is_unsure_of(SPEC)
    watching.rolled_back()
    watching.watch(OTHER, *batch(1))
    assert not watching.is_unsure_of(OTHER)  # it served before


def test_a_window_smaller_than_the_rows_it_wants_is_enough_when_it_is_full() -> None:
    watching = guard(GuardSettings(window_rows=60, least_rows=20, full_rows=100, jump_index=99.0))
    shown(watching)
    watching.watch(OTHER, *batch(59))
    assert watching.is_unsure_of(OTHER)
    watching.watch(OTHER, *batch(1))
    assert not watching.is_unsure_of(OTHER)


def test_it_is_not_unsure_of_what_it_has_nothing_to_hold_against() -> None:
    watching = guard(reference=Reference())
    shown(watching)
    watching.watch(OTHER, *batch(1))
    assert not watching.is_unsure_of(OTHER)


def test_the_limit_of_a_jump_allows_for_the_rows_of_both_windows_and_for_what_is_usual() -> None:
    def allowed(before: int, reference: Reference = REFERENCE, known_of: EngineSpec = OTHER) -> float:
        watching = guard()
        watching.know(known_of.digest, reference)
        shown(watching, rows=before)
        watching.watch(OTHER, *batch(100))
        return next(figure.allowed for figure in watching.figures() if figure.rule is Rule.JUMP)

    assert allowed(100) == pytest.approx(LIMITS.jump_index * (100 / 50) ** 0.5)
    assert allowed(50) == pytest.approx(LIMITS.jump_index * (100 * (1 / 50 + 1 / 100)) ** 0.5)
    for spec in (SPEC, OTHER):  # whichever of the two varies more
        assert allowed(100, replace(REFERENCE, usual_index=1.0), spec) == pytest.approx(BEYOND_USUAL * 2**0.5)


def test_after_a_roll_back_nothing_is_compared_with_the_version_that_was_left() -> None:
    loose = GuardSettings(window_rows=400, least_rows=50, full_rows=100, drift_index=99.0, shift=9.0)
    watching = guard(loose)
    shown(watching, times=4, scale=3.0)
    watching.rolled_back()
    assert watching.watch(OTHER, *batch(100)) is None
    assert Rule.JUMP not in {figure.rule for figure in watching.figures()}


def seen(limits: GuardSettings = LIMITS) -> Guard:
    """A guard that has seen enough of a sound version."""
    watching = guard(limits)
    shown(watching)
    return watching


def test_a_new_version_is_to_be_compared_with_the_one_before_if_that_was_judged() -> None:
    watching = guard()
    assert watching.canary(SPEC) is None
    shown(watching, rows=LIMITS.least_rows - 1)
    assert watching.canary(OTHER) is None
    watching = seen()
    canary = watching.canary(OTHER)
    assert canary is not None
    assert (canary.before, len(canary.places(1000, ()))) == (SPEC.digest, LIMITS.canary_rows)
    watching.rolled_back()
    assert watching.canary(SPEC) is None
    assert seen(LIMITS.model_copy(update={"canary_rows": 0})).canary(OTHER) is None


@pytest.mark.parametrize(("wrong", "words"), [({"shift": 1}, "1.00 days late"), ({"shift": -1}, "1.00 days early")])
def test_forecasts_of_the_same_rows_that_fit_on_other_days_are_found(wrong: dict[str, int], words: str) -> None:
    watching = seen()
    watching.canary(OTHER)
    trip = watching.beside(batch(60)[1], batch(60, **wrong)[1])
    assert trip is not None
    assert trip.rule is Rule.CANARY
    assert words in trip.detail


def test_forecasts_that_differ_from_those_of_the_version_before_are_found_with_wider_limits_for_few_rows() -> None:
    limits = LIMITS.model_copy(update={"canary_rows": 200, "least_rows": 50, "canary_difference": 0.25})
    allowed = limits.canary_difference
    _, before = batch(200)
    for rows, factor, found in [
        (49, 3.9, False),
        (50, 1.9, False),
        (50, 2.1, True),
        (200, 0.9, False),
        (200, 1.1, True),
    ]:
        watching = seen(limits)
        watching.canary(OTHER)
        apart = allowed * factor  # of the mean of the two
        trip = watching.beside(before[:rows], before[:rows] * np.float32((2 + apart) / (2 - apart)))
        assert (trip is not None) is found
        assert trip is None or f"{apart:.3f}" in trip.detail


def test_forecasts_of_which_a_part_is_late_are_found_with_wider_limits_for_few_rows() -> None:
    limits = LIMITS.model_copy(update={"canary_rows": 200, "least_rows": 2, "canary_days": 0.1})
    _, sound = batch(200)
    late = np.roll(sound, 1, axis=1)
    for rows, part, found in [(200, 0.05, False), (200, 0.3, True), (20, 0.3, False), (2, 0.3, False), (2, 1.0, True)]:
        watching = seen(limits)
        watching.canary(OTHER)
        now = (sound * np.float32(1 - part) + late * np.float32(part))[:rows]
        assert (watching.beside(sound[:rows], now) is not None) is found, (rows, part)


def test_what_was_compared_once_is_not_compared_again() -> None:
    watching = seen(LIMITS.model_copy(update={"canary_rows": 60}))
    watching.canary(OTHER)
    _, before = batch(60)
    assert watching.beside(before, before) is None
    assert watching.canary(OTHER) is None
    assert watching.beside(before, before * 9) is None


def test_versions_with_other_horizons_are_not_compared() -> None:
    watching = seen()
    watching.canary(OTHER)
    _, before = batch(60)
    assert watching.beside(before[:, :7], before * 9) is None


def test_rows_that_only_the_backup_could_forecast_are_counted_over_the_window() -> None:
    limits = GuardSettings(window_rows=400, least_rows=100, fault_share=0.05)
    watching = guard(limits)
    assert watching.replaced(SPEC, 10, 5) is None  # 5 % of at least 100
    trip = watching.replaced(SPEC, 10, 1)
    assert trip is not None
    assert trip.rule is Rule.FAULT_SHARE
    assert "6 of the last 20 rows" in trip.detail
    watching.rolled_back()
    assert all(watching.replaced(SPEC, 100, 5) is None for _ in range(50))
    assert watching.replaced(SPEC, 100, 6) is not None


def test_most_of_the_last_batches_must_be_slow_before_the_engine_is() -> None:
    limits = GuardSettings(latency_batches=4)
    watching = guard(limits, replace(REFERENCE, latency_budget_s=0.1, budget_rows=100))
    assert watching.took(SPEC, 100, 0.2) is None
    assert watching.took(SPEC, 100, 0.2) is None
    trip = watching.took(SPEC, 100, 0.2)
    assert trip is not None
    assert trip.rule is Rule.LATENCY
    again = guard(limits, replace(REFERENCE, latency_budget_s=0.1, budget_rows=100))
    assert all(again.took(SPEC, 100, seconds) is None for seconds in (0.2, 0.05) * 10)
    assert all(again.took(SPEC, 400, 0.39) is None for _ in range(10))  # four times the rows, four times the budget


def test_without_a_budget_nothing_is_slow() -> None:
    assert all(guard().took(SPEC, 1, 1e9) is None for _ in range(200))
