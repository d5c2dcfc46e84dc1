"""The demo as a user runs it, on few days: real broker, real worker process, outcomes counted from the topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import __main__ as demo_main
from demo import bakery
from demo.bakery import DataUnavailableError


@pytest.mark.kafka
def test_six_days_are_forecast_exactly_once_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        bakery.cached()
    except DataUnavailableError as error:
        pytest.skip(str(error))
    path = tmp_path / "deep" / "demo.html"
    # 105 series x 6 days: enough for one broken event of every kind among the good ones.
    assert demo_main.main(["--days", "6", "--report", str(path)]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "641",
        "630",
        "lost",
        "duplicates",
        "wrong_length 1",
        "seasonal naive",
        "105",
        "perfect foresight",
    ):
        assert expected in printed
    text = path.read_text()
    assert "none lost, none twice" in text
    assert "Waste against demand served" in text
    assert text.count("<svg") == 6
