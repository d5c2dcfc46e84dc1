"""Baselines of an earlier run are kept only if it forecast the same days of the same series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from demo.training.accuracy import _known_baselines, _split
from demo.training.tasks import BAKERY
from tests.helpers.series import made_series

DATA = made_series(days=200)


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "accuracy-bakery.json"
    reports = {"transformer": {"all": 1}, "seasonal naive": {"all": 2}}
    path.write_text(json.dumps({**_split(BAKERY, DATA), "models": ["transformer"], "reports": reports, **changes}))
    return path


def test_the_baselines_are_what_is_no_model(tmp_path: Path) -> None:
    assert _known_baselines(BAKERY, DATA, written(tmp_path)) == {"seasonal naive": {"all": 2}}


@pytest.mark.parametrize("changes", [{"series": 1}, {"test_last_day": "2020-01-01"}, {"origins": 0}])
def test_baselines_of_other_days_or_series_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(
        SystemExit, match=rf"its baselines are of .*{next(iter(changes))}.*name a folder with --baselines"
    ):
        _known_baselines(BAKERY, DATA, written(tmp_path, **changes))


def test_that_there_are_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"accuracy-bakery\.json: there is none"):
        _known_baselines(BAKERY, DATA, tmp_path / "accuracy-bakery.json")
