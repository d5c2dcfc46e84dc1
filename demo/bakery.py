"""Daily demand of a bakery chain: 35 stores x 3 products, 2016-01-02 to 2019-04-30.

The data are part of the source archive of the Python package ddop 0.7.6 (`ddop/datasets/data`). The package itself needs
libraries of 2020; only the archive is wanted. pip fetches it, checks its digest before anything in it is read, and its
two CSV files are kept in the user's cache directory.
"""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from demo.series import FloatArray, SeriesSet

PACKAGE: Final = "ddop"
VERSION: Final = "0.7.6"
ARCHIVE_SHA256: Final = "def7756324fae64e64f9318b195c1daa7c4141611543a16ba744daf3993a5da2"
FILES: Final = ("bakery_data.csv", "bakery_target.csv")

_EPOCH: Final = date(1970, 1, 1)
_TIMEOUT_S: Final = 300
_SCHOOL_HOLIDAY: Final = 0.5  # sku_features.avsc allows fractions: shops stay open in school holidays


class DataUnavailableError(RuntimeError):
    """Demo data can't be had. The message says what was tried and what to do."""


def load() -> SeriesSet:
    """The whole data set, fetched once and cached. Raises `DataUnavailableError` if it can't be fetched."""
    return read(cached())


def cache_directory() -> Path:
    """The per-user directory of the demo's data; `XDG_CACHE_HOME` is honoured. Not created here."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "forecast-worker" / f"{PACKAGE}-{VERSION}"


def cached() -> Path:
    """The directory that holds both CSV files; downloads them if they aren't there yet. Blocks up to five minutes."""
    directory = cache_directory()
    if not all((directory / name).is_file() for name in FILES):
        with tempfile.TemporaryDirectory(prefix="forecast-worker-") as scratch:
            extract(_download(Path(scratch)), directory)
    return directory


def extract(archive: Path, directory: Path, *, sha256: str = ARCHIVE_SHA256) -> None:
    """Copy the two CSV files out of the archive. Raises `DataUnavailableError` if its digest isn't the expected one."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != sha256:
        raise DataUnavailableError(
            f"{archive.name} has sha256 {digest}, expected {sha256}: it isn't the published file; "
            "nothing of it was read. Remove it and download again"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for name in FILES:
            source = tar.extractfile(f"{PACKAGE}-{VERSION}/ddop/datasets/data/{name}")
            if source is None:
                raise DataUnavailableError(f"{archive.name} has no regular file {name}")
            partial = directory / f"{name}.{os.getpid()}.partial"
            partial.write_bytes(source.read())
            partial.replace(directory / name)  # atomic: another process sees all of the file or none


def read(directory: Path) -> SeriesSet:
    """Both CSV files as typed arrays: 105 series of 1,215 days. The file's own weekday column is off by one and not used."""
    rows = _columns(directory / "bakery_data.csv")
    demand = np.array(_columns(directory / "bakery_target.csv")["demand"], dtype=np.float32)
    ordinals = {text: (date.fromisoformat(text) - _EPOCH).days for text in set(rows["date"])}
    days = np.array([ordinals[text] for text in rows["date"]], dtype=np.int32)
    keys = list(zip(rows["product"], rows["store"], strict=True))
    series = sorted(set(keys), key=lambda key: (int(key[1]), int(key[0])))
    place = {key: index for index, key in enumerate(series)}
    at = (np.array([place[key] for key in keys]), days - days.min())
    shape = (len(series), int(days.max() - days.min()) + 1)
    if len(days) != shape[0] * shape[1]:
        raise DataUnavailableError(f"bakery data: {len(days)} rows, expected {shape[0]} series x {shape[1]} days")

    def grid(values: FloatArray) -> FloatArray:
        out = np.full(shape, np.nan, dtype=np.float32)  # a day named twice leaves a hole that SeriesSet refuses
        out[at] = values
        return out

    def column(name: str) -> FloatArray:
        return np.array(rows[name], dtype=np.float32)

    holiday = np.maximum(column("is_holiday"), _SCHOOL_HOLIDAY * column("is_schoolholiday"))
    return SeriesSet(
        name="bakery",
        sku_ids=tuple(f"product-{product}" for product, _ in series),
        store_ids=tuple(f"store-{store}" for _, store in series),
        dates=np.arange(days.min(), days.max() + 1, dtype=np.int32),
        sales=grid(demand),
        promo=grid(column("promotion_currentweek")),
        holiday=grid(holiday.astype(np.float32)),
        temperature=grid(column("temperature")),
        long_memory=True,
    )


def _columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader)
        return dict(zip(header, map(list, zip(*reader, strict=True)), strict=True))


def _download(scratch: Path) -> Path:
    # With a hash in the requirement pip checks the archive before it runs anything of it (it reads the metadata by
    # setup.py); --no-binary makes it take the source archive, and --no-deps leaves the libraries of 2020 alone.
    requirement = scratch / "requirements.txt"
    requirement.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", PACKAGE, "--require-hashes", "--dest", str(scratch), "--requirement", str(requirement)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataUnavailableError(
            f"pip took over {_TIMEOUT_S} s to download {PACKAGE} {VERSION}; try again"
        ) from error
    archive = scratch / f"{PACKAGE}-{VERSION}.tar.gz"
    if result.returncode != 0 or not archive.is_file():
        raise DataUnavailableError(
            f"pip couldn't download the source archive of {PACKAGE} {VERSION} (exit {result.returncode}). "
            f"Check that pip works and can reach its package index; it said:\n{result.stderr.strip()[-2000:]}"
        )
    return archive
