from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from demo import bakery
from demo.bakery import DataUnavailableError
from demo.events import writer_schema
from demo.reference import REFERENCE_MODELS, DaysError, ReferenceModel
from demo.series import HORIZON_DAYS
from schemas.engine_card import CARD_NAME, load_card
from tests.helpers.series import made_series


def trained_until(day: date) -> ReferenceModel:
    return ReferenceModel(folder=Path("made"), trained_until=day)


def test_all_days_judged_lie_after_the_training_and_are_known() -> None:
    series = made_series(days=80)
    last = int(series.dates[-1])
    dates = trained_until(date(2020, 2, 20)).judged_dates(series)
    assert dates[0] == int(np.datetime64("2020-02-20", "D").astype(int))
    assert dates[-1] + HORIZON_DAYS == last
    assert np.all(np.diff(dates) == 1)


def test_the_last_days_are_played_and_no_more_than_may_be_judged() -> None:
    series, reference = made_series(days=80), trained_until(date(2020, 2, 20))
    everything = reference.played_dates(series, None)
    assert reference.played_dates(series, 3) == everything[-3:]
    assert reference.played_dates(series, len(everything)) == everything
    with pytest.raises(DaysError, match=rf"got {len(everything) + 1}, but made has {len(everything)} days"):
        reference.played_dates(series, len(everything) + 1)


def test_data_that_end_with_the_training_have_no_day_to_judge() -> None:
    with pytest.raises(DaysError, match="got all, but made has 0 days"):
        trained_until(date(2020, 3, 10)).played_dates(made_series(days=80), None)


@pytest.mark.parametrize("name", sorted(REFERENCE_MODELS))
def test_the_committed_models_are_there_and_know_the_fields(name: str) -> None:
    folder = REFERENCE_MODELS[name].folder
    card = load_card(folder / CARD_NAME)
    covariates = ("promo", "discount", "holiday", "temperature", "in_stock", "weekday_mean")
    fields = {field["name"] for field in writer_schema(covariates)["fields"]}
    assert {tensor.name for tensor in card.inputs} <= fields
    assert json.loads((folder / "report.json").read_text())["data"] == name


def test_the_bakery_models_days_are_its_last_eight_weeks() -> None:
    try:
        series = bakery.load()
    except DataUnavailableError as error:
        pytest.skip(str(error))
    dates = REFERENCE_MODELS["bakery"].played_dates(series, None)
    assert dates[0] + 1 == int(series.dates[-56])
    assert len(dates) == 56 - HORIZON_DAYS + 1


def test_the_split_of_the_training_ends_where_the_demo_begins_to_judge() -> None:
    pytest.importorskip("torch", reason="needs the extra `train`")
    from demo.training.tasks import TASKS  # noqa: PLC0415 - after the check that PyTorch is there

    ends = {"bakery": date(2019, 4, 30), "freshretailnet": date(2024, 6, 11)}
    for name, reference in REFERENCE_MODELS.items():
        assert (ends[name] - reference.trained_until).days == TASKS[name].test_days
        assert reference.folder.name == f"{name}-{next(iter(TASKS[name].recipes))}"
