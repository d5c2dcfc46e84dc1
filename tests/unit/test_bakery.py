from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from demo import bakery
from demo.bakery import DataUnavailableError

DATA = """date,weekday,is_schoolholiday,is_holiday,store,product,temperature,promotion_currentweek
2020-01-02,FRI,1,0,10,101,5.5,0
2020-01-01,THU,1,1,10,101,4.5,1
2020-01-01,THU,0,0,2,101,3.5,0
2020-01-02,FRI,0,0,2,101,2.5,0
"""
TARGET = "demand\n7.0\n8.0\n9.0\n10.0\n"


def archive_of(tmp_path: Path, data: str = DATA, target: str = TARGET) -> Path:
    path = tmp_path / "ddop-0.7.6.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in zip(bakery.FILES, (data, target), strict=True):
            info = tarfile.TarInfo(f"ddop-0.7.6/ddop/datasets/data/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_archive_to_series(tmp_path: Path) -> None:
    archive = archive_of(tmp_path)
    bakery.extract(archive, tmp_path / "out", sha256=digest(archive))
    series = bakery.read(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(bakery.FILES)
    assert list(zip(series.sku_ids, series.store_ids, strict=True)) == [
        ("product-101", "store-2"),
        ("product-101", "store-10"),
    ]
    assert series.dates.tolist() == [18262, 18263]
    assert series.sales.tolist() == [[9.0, 10.0], [8.0, 7.0]]
    assert series.holiday is not None
    assert series.promo is not None
    assert series.holiday.tolist() == [[0.0, 0.0], [1.0, 0.5]]
    assert series.promo.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert series.discount is None


def test_archive_with_another_digest_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError, match="expected def7756324"):
        bakery.extract(archive_of(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [("2020-01-02,FRI,0", "2020-01-01,THU,0"), ("2020-01-02,FRI,0,0,2,101,2.5,0\n", "")])
def test_series_with_a_hole_are_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    target = TARGET if change[1] else TARGET.replace("10.0\n", "")
    archive = archive_of(tmp_path, DATA.replace(*change), target)
    bakery.extract(archive, tmp_path, sha256=digest(archive))
    with pytest.raises((DataUnavailableError, ValueError), match=r"expected 2 series x 2 days|aren't finite"):
        bakery.read(tmp_path)


def test_pip_checks_the_digest_and_its_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    requirements: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        requirements.append(Path(command[-1]).read_text())
        return subprocess.CompletedProcess(command, 1, "", "no route")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataUnavailableError, match="no route"):
        bakery.load()
    assert {"--require-hashes", "--no-deps"} <= set(commands[0])
    assert requirements == [f"ddop==0.7.6 --hash=sha256:{bakery.ARCHIVE_SHA256}\n"]


def test_cache_is_used_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", None)
    archive = archive_of(tmp_path)
    bakery.extract(archive, bakery.cache_directory(), sha256=digest(archive))
    assert len(bakery.load()) == 2
    assert bakery.cache_directory().is_relative_to(tmp_path)


def test_real_data_are_what_the_report_says_of_them() -> None:
    try:
        series = bakery.load()
    except DataUnavailableError as error:
        pytest.skip(str(error))
    assert series.sales.shape == (105, 1215)
    assert (len(set(series.store_ids)), len(set(series.sku_ids))) == (35, 3)
    assert np.datetime64(int(series.dates[0]), "D") == np.datetime64("2016-01-02")
    assert float(series.sales.mean()) == pytest.approx(100.03, abs=0.01)
