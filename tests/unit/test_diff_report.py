from __future__ import annotations

import numpy as np

from worker.diff_report import Report, Side, text
from worker.forecast_diff import compare
from worker.forecast_table import ForecastTable, Matching


def test_keys_and_names_that_look_like_markup_are_printed_as_they_are() -> None:
    keys = [b"a[/x]|1", b"[bold]b|:smile:"]
    old, new = (
        ForecastTable(
            keys=keys,
            as_of=np.array([100, 100], np.int64),
            levels=(0.1, 0.5, 0.9),
            values=np.full((2, 3, 3), value, np.float32),
        )
        for value in (1.0, 2.0)
    )
    report = Report(
        before=Side(name="[/before]", forecasts=2, models={"model[/] 1": 2}),
        after=Side(name="after", forecasts=2, models={}, left_out={"odd [/reason]": 1}),
        matching=Matching(units=[(key, None) for key in keys], only_before=0, only_after=0, other_date=0),
        comparison=compare(old, new),
    )
    found = text(report)
    for word in ("a[/x]|1", "[bold]b|:smile:", "[/before]", "model[/] 1", "odd [/reason]"):
        assert word in found
