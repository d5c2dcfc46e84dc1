"""Maven artifacts in a per-user cache: pinned by coordinate and SHA-256, fetched with jgo, ready offline afterwards.

`jars.lock` names every file (digest, bytes, coordinate), so no start depends on how dependencies resolve that day, and a
half or a wrong download is never used: a file counts only when its digest matches. `python -m demo.artifacts` writes the
lock anew from the coordinates below (after changing a version).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jgo
from jgo.maven import MavenContext, PythonResolver

KAFKA_VERSION = "4.4.0"
REGISTRY_VERSION = "2.6.13.Final"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
KAFKA_LOGGING = "org.slf4j:slf4j-simple:1.7.36"  # Kafka's coordinates bring slf4j's interface, but nothing that writes
REGISTRY = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"
LOCK_FILE = Path(__file__).with_name("jars.lock")

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all), never from two threads at once."""

_ATTEMPTS = 4
_CONNECTIONS = 6


class ArtifactError(Exception):
    """An artifact can be had neither from the cache nor from Maven Central. Nothing incomplete stays in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of Maven Central: `group:name:version[:packaging[:classifier]]`, its size and its SHA-256."""

    coordinate: str
    size_bytes: int
    sha256: str

    def fetch(self, context: MavenContext) -> Path:
        """The file in `context`'s cache, downloaded if it isn't there. Its content isn't checked here."""
        group, name, version, *rest = self.coordinate.split(":")
        packaging = rest[0] if rest else "jar"
        classifier = rest[1] if len(rest) > 1 else ""
        component = context.project(group, name).at_version(version)
        return Path(component.artifact(classifier=classifier, packaging=packaging).resolve())

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is this artifact, whole."""
        return path.stat().st_size == self.size_bytes and sha256_of(path) == self.sha256


def cache_dir() -> Path:
    """This project's per-user cache: under `XDG_CACHE_HOME`, else where the platform keeps caches. Made if missing."""
    if home := os.environ.get("XDG_CACHE_HOME"):
        base = Path(home)
    else:
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    path = base / "forecast-worker"
    path.mkdir(parents=True, exist_ok=True)
    return path


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lock(path: Path = LOCK_FILE) -> tuple[Artifact, ...]:
    """The pinned artifacts, in the file's order."""
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return tuple(Artifact(sha256=row[0], size_bytes=int(row[1]), coordinate=row[2]) for row in rows)


def kafka_jars(progress: Progress | None = None) -> tuple[Path, ...]:
    """The class path of the broker: every jar of the lock file.

    Raises:
        ArtifactError: a jar is neither cached nor to be had.
    """
    return fetch_all([a for a in read_lock() if a.coordinate != REGISTRY], f"Apache Kafka {KAFKA_VERSION}", progress)


def registry_home(progress: Progress | None = None) -> Path:
    """The directory of the unpacked registry. The archive is removed once it is unpacked.

    Raises:
        ArtifactError: the archive is neither cached nor to be had.
    """
    archive = next(a for a in read_lock() if a.coordinate == REGISTRY)
    home = cache_dir() / f"apicurio-registry-{REGISTRY_VERSION}-{archive.sha256[:12]}"
    with cache_lock("registry"):
        if not home.is_dir():
            (path,) = fetch_all([archive], f"Apicurio Registry {REGISTRY_VERSION}", progress)
            unpack(path, home)
            path.unlink()
    return home


def unpack(archive: Path, home: Path) -> None:
    """Unpack a tar archive so that `home` either holds all of it or doesn't exist."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".unpack-") as scratch:
        target = Path(scratch) / "content"
        with tarfile.open(archive) as tar:
            # Python before 3.11.4 has no filters; what is unpacked has the pinned digest, so it may do without.
            options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(target, **options)  # noqa: S202 - see above
        target.rename(home)


def fetch_all(artifacts: Sequence[Artifact], what: str, progress: Progress | None = None) -> tuple[Path, ...]:
    """Paths of the artifacts, from the cache or else from Maven Central; every one has the pinned digest.

    Processes that fetch at once wait for each other. Raises `ArtifactError`.
    """
    meter = Meter(what, sum(a.size_bytes for a in artifacts), progress)
    context = MavenContext(
        repo_cache=cache_dir() / "maven", resolver=PythonResolver(progress_callback=meter.file), timeout=30
    )
    with cache_lock("maven"), ThreadPoolExecutor(max_workers=_CONNECTIONS) as pool:
        return tuple(pool.map(lambda artifact: fetch(artifact, context), artifacts))


def fetch(artifact: Artifact, context: MavenContext, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Path of one artifact with its pinned digest; a failed or corrupt download is tried again, a little later each time."""
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(2.0 ** (attempt - 1))
        try:
            path = artifact.fetch(context)
        except (
            OSError,
            RuntimeError,
            AssertionError,
        ) as error:  # jgo's own checks, and what requests raises (an OSError)
            problem = f"{type(error).__name__}: {error}"
            remove_partial(artifact, context)
            continue
        if artifact.matches(path):
            return path
        problem = f"the file has SHA-256 {sha256_of(path)}, expected {artifact.sha256}"
        path.unlink()
    raise ArtifactError(
        f"cannot get {artifact.coordinate} in {_ATTEMPTS} attempts: {problem}. "
        "Check that Maven Central can be reached, or name a directory with the files (KAFKA_LIBS, APICURIO_HOME)."
    )


def remove_partial(artifact: Artifact, context: MavenContext) -> None:
    """Remove what an interrupted download left: jgo writes to the final name, and would take the rest for the whole."""
    group, name, version, *_ = artifact.coordinate.split(":")
    shutil.rmtree(context.repo_cache.joinpath(*group.split("."), name, version), ignore_errors=True)


@contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Held by one process at a time; the system releases it when the process ends, in whatever way."""
    with (cache_dir() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Meter:
    """Adds up the downloads of several threads and reports them as one."""

    def __init__(self, what: str, total_bytes: int, progress: Progress | None) -> None:
        self._what = what
        self._total_bytes = total_bytes
        self._progress = progress
        self._done_bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def file(self, _name: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        """What jgo asks for: one of these for each file, which yields what is to be called with the bytes of each chunk."""
        yield self.add

    def add(self, size_bytes: int) -> None:
        """Count `size_bytes` more (a repeated download counts once: never more than all)."""
        with self._lock:
            self._done_bytes = min(self._done_bytes + size_bytes, self._total_bytes)
            if self._progress is not None:
                self._progress(f"downloading {self._what}", self._done_bytes, self._total_bytes)


def write_lock(path: Path = LOCK_FILE) -> None:
    """Resolve the coordinates anew with all they depend on, download everything, and write the lock file."""
    context = MavenContext(repo_cache=cache_dir() / "maven")
    found = {*jgo.resolve(KAFKA), *jgo.resolve(KAFKA_LOGGING)}
    names = {f"{a.groupId}:{a.artifactId}:{a.version}" for a in found}
    lines = ["# sha256  bytes  coordinate; written by `python -m demo.artifacts`"]
    for name in [*sorted(names), REGISTRY]:
        file = Artifact(coordinate=name, size_bytes=0, sha256="").fetch(context)
        lines.append(f"{sha256_of(file)} {file.stat().st_size:>9} {name}")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_lock()
