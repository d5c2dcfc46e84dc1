from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from demo.worker_process import HistogramSamples, WorkerFailedError, WorkerProcess, histograms, toml

METRICS = """# HELP x_seconds time
# TYPE x_seconds histogram
x_seconds_bucket{le="0.1",stage="poll"} 1
x_seconds_bucket{le="+Inf",stage="poll"} 4
x_seconds_count{stage="poll"} 4
x_seconds_sum{stage="poll"} 2.5
x_seconds_bucket{le="0.1",stage="engine"} 0
x_seconds_bucket{le="+Inf",stage="engine"} 0
x_seconds_count{stage="engine"} 0
x_seconds_sum{stage="engine"} 0
# HELP y_rows rows
# TYPE y_rows histogram
y_rows_bucket{le="8"} 3
y_rows_bucket{le="+Inf"} 3
y_rows_count 3
y_rows_sum 20
"""


def test_settings_survive_toml() -> None:
    tables: dict[str, dict[str, object]] = {
        "kafka": {"bootstrap.servers": 'a"\\ü:1'},
        "wire": {"writer_schemas": ["a.avsc", "b.avsc"], "on": True, "off": False, "share": 0.5, "count": 3},
    }
    assert tomllib.loads(toml(tables)) == tables


def test_histograms_by_label() -> None:
    found = histograms(METRICS, "x_seconds", "stage")
    assert found["poll"] == HistogramSamples(bounds=(0.1, float("inf")), counts=(1, 3), total=2.5)
    assert found["engine"].count == 0


def test_histogram_without_a_label_and_one_that_is_not_there() -> None:
    assert histograms(METRICS, "y_rows")[""].counts == (3, 0)
    assert histograms(METRICS, "z_rows") == {}


def test_worker_that_refuses_its_settings_is_told_with_its_log(tmp_path: Path) -> None:
    worker = WorkerProcess({"nonsense": {"key": 1}}, tmp_path)
    with pytest.raises(WorkerFailedError, match=r"(?s)exit code 2.*nonsense") as caught, worker:
        pytest.fail("it got ready")
    assert "Traceback" not in str(caught.value)


def test_worker_that_is_not_ready_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = tmp_path / "idle.sh"
    idle.write_text("#!/bin/sh\nexec sleep 60\n")
    idle.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(idle))
    worker = WorkerProcess({}, tmp_path, ready_timeout_s=0.0)
    with pytest.raises(WorkerFailedError, match="isn't ready"), worker:
        pytest.fail("it got ready")
    assert worker._process is not None
    assert worker._process.returncode == -9
