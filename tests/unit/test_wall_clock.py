import time

import pytest

from worker.wall_clock import wall_clock_ms


def test_it_counts_milliseconds_since_1970_and_rounds_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_999_999)
    assert wall_clock_ms() == 1_700_000_000_123
