"""The guard at default settings and forecasts of real models for real sales: it finds each way of being wrong, and nothing else.

Four thousand series from all over FreshRetailNet-50K on two days; `python -m bench guard` does the same for all of them on all days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from bench.guard_cases import (
    DISTORTIONS,
    Floats,
    Inputs,
    Model,
    broken_int8,
    calendars,
    golden_share,
    swapped,
    without_weekdays,
)
from bench.guard_detection import Before, Detections
from bench.job import ROOT
from demo import freshretailnet
from demo.bakery import DataUnavailableError
from demo.series import SeriesSet

EVERY = 12
USUAL, HOLIDAYS = 8, 2
"""Places among the days that events can be made for; the second has holidays and a working Sunday around it."""
COVARIATES = {
    ("promo", "discount"): 256,
    ("promo", "holiday"): 1536,
    ("promo", "temperature"): 256,
    ("discount", "holiday"): 256,
    ("discount", "temperature"): 256,
    ("holiday", "temperature"): 256,
}
"""Rows from a worker's start on within which their being swapped is found."""
FROM_A_START = {"not a number": 256, "zeros": 256, "scaled by 1.3": 512, "a day late": 512, "a day early": 1024}
AFTER_A_SWAP = dict.fromkeys(FROM_A_START, 256) | {"scaled by 1.3": 512}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Day:
    """Rows of one day, the models' forecasts of them, and the model that serves and the one before."""

    lstm: Model
    inputs: Inputs
    sound: Floats
    before: Before


@cache
def whole() -> SeriesSet | None:
    try:
        return freshretailnet.load()
    except DataUnavailableError:
        return None


@cache
def day(place: int) -> Day:
    series = whole()
    if series is None:
        pytest.skip("FreshRetailNet-50K isn't there: set FRESHRETAILNET_PARQUET")
    as_of = series.as_of_dates(10**6)[place]
    chosen = series.select(np.random.default_rng(0).permutation(len(series))[: len(series) // EVERY])
    lstm, tsmixer = (Model.load(ROOT / "models" / f"freshretailnet-{name}") for name in ("lstm", "tsmixer"))
    inputs, theirs = lstm.inputs(chosen, as_of), tsmixer.inputs(chosen, as_of)
    values = tsmixer.forecast(theirs)
    before = Before(model=tsmixer, inputs=theirs, values=values, same_rows=values)
    return Day(lstm=lstm, inputs=inputs, sound=lstm.forecast(inputs), before=before)


def tried(inputs: Inputs, values: Floats, before: Before | None = None) -> Mapping[str, object]:
    """What the guard makes of `values` in batches of 256 rows."""
    detections = Detections()
    detections.add("case", day(USUAL).lstm, inputs, values, before)
    result: Mapping[str, object] = detections.result()["case"]
    return result


def rows_until_found(inputs: Inputs, values: Floats, before: Before | None = None) -> int:
    rows = tried(inputs, values, before)["rows_most"]
    assert isinstance(rows, int), "it was never found"
    return rows


@pytest.mark.parametrize("place", [USUAL, HOLIDAYS])
def test_sound_forecasts_raise_no_alarm_at_a_start_after_a_swap_or_against_histories_without_weekdays(
    place: int,
) -> None:
    now = day(place)
    assert tried(now.inputs, now.sound)["found"] == 0
    assert tried(now.inputs, now.sound, now.before)["found"] == 0
    assert tried(without_weekdays(now.inputs), now.sound)["found"] == 0


@pytest.mark.parametrize("case", FROM_A_START)
def test_a_wrong_engine_is_found_from_a_start_on_within_its_rows(case: str) -> None:
    now = day(USUAL)
    assert rows_until_found(now.inputs, DISTORTIONS[case](now.sound)) <= FROM_A_START[case]


@pytest.mark.parametrize("place", [USUAL, HOLIDAYS])
@pytest.mark.parametrize("case", AFTER_A_SWAP)
def test_a_wrong_version_is_found_after_a_swap_within_its_rows_also_around_holidays(case: str, place: int) -> None:
    now = day(place)
    assert rows_until_found(now.inputs, DISTORTIONS[case](now.sound), now.before) <= AFTER_A_SWAP[case]


@pytest.mark.parametrize("calendar", [0, 1], ids=["ahead", "behind"])
def test_a_version_whose_calendar_is_a_day_off_is_found_after_a_swap(calendar: int) -> None:
    now = day(USUAL)
    _, inputs = list(calendars(now.inputs))[calendar]
    assert rows_until_found(now.inputs, now.lstm.forecast(inputs), now.before) == 256


@pytest.mark.parametrize("pair", COVARIATES, ids=" and ".join)
def test_swapped_covariates_are_found_within_their_rows_and_sooner_after_a_swap(pair: tuple[str, str]) -> None:
    now = day(USUAL)
    wrong = now.lstm.forecast(swapped(now.inputs, *pair))
    started = rows_until_found(now.inputs, wrong)
    assert started <= COVARIATES[pair]
    assert rows_until_found(now.inputs, wrong, now.before) <= started


def test_int8_scales_that_cost_accuracy_fail_the_golden_batch_and_sound_ones_pass() -> None:
    now, folder = day(USUAL), ROOT / "models" / "freshretailnet-lstm"
    shares = {
        name.removeprefix("INT8"): golden_share(broken, folder) for name, broken in broken_int8(folder, now.inputs)
    }
    refused = {name for name, share in shares.items() if share > 1}
    assert refused == {", activation scales times 0.125", ", activation scales times 32"}
