from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jgo.maven import MavenContext

from demo import artifacts
from demo.artifacts import KAFKA, KAFKA_LOGGING, REGISTRY, Artifact, ArtifactError, Meter

CONTENT = b"the jar"


class FakeRemote:
    """jgo's resolver, as far as it is used: each download does the next of `steps`: bytes to deliver, or what to raise."""

    def __init__(self, *steps: bytes | Exception) -> None:
        self.steps = list(steps)

    def download(self, artifact: Any) -> Path:
        path: Path = artifact.cached_path
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            path.write_bytes(b"half")
            raise step
        path.write_bytes(step)
        return path


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "whole").write_bytes(CONTENT)
    digest = artifacts.sha256_of(tmp_path / "whole")
    return Artifact(coordinate="org.example:thing:1.0", size_bytes=len(CONTENT), sha256=digest)


Fetch = Callable[..., tuple[Path, list[float]]]


@pytest.fixture
def fetch(artifact: Artifact, tmp_path: Path) -> Fetch:
    """Fetch from a remote with these steps; returns the path and the pauses made."""

    def run(*steps: bytes | Exception) -> tuple[Path, list[float]]:
        context = MavenContext(resolver=cast(Any, FakeRemote(*steps)), repo_cache=tmp_path / "maven")
        pauses: list[float] = []
        return artifacts.fetch(artifact, context, pauses.append), pauses

    return run


def test_a_download_with_the_right_digest_is_taken_and_kept(fetch: Fetch) -> None:
    path, pauses = fetch(CONTENT)
    assert path.read_bytes() == CONTENT
    assert pauses == []
    again, _ = fetch()  # no step: offline
    assert again == path


@pytest.mark.parametrize("failure", [ConnectionError("reset"), RuntimeError("not found"), b"the jax", b"the"])
def test_a_failed_partial_or_corrupt_download_is_tried_again_later(fetch: Fetch, failure: bytes | Exception) -> None:
    path, pauses = fetch(failure, failure, CONTENT)
    assert path.read_bytes() == CONTENT
    assert pauses == [1.0, 2.0]


def test_gives_up_with_the_reason_and_keeps_nothing(fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)org\.example:thing:1\.0 in 4 attempts: .*unplugged.*KAFKA_LIBS"):
        fetch(b"wrong", *[ConnectionError("unplugged")] * 3)
    assert [path for path in (tmp_path / "maven").rglob("*") if path.is_file()] == []


def test_the_lock_file_pins_each_coordinate_once_with_digest_and_size() -> None:
    locked = artifacts.read_lock()
    names = [artifact.coordinate for artifact in locked]
    assert len(set(names)) == len(names)
    assert {KAFKA, KAFKA_LOGGING, REGISTRY} <= set(names)
    assert all(len(artifact.sha256) == 64 and artifact.size_bytes > 0 for artifact in locked)


def test_coordinates_name_packaging_and_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    context = MavenContext()

    def resolve(artifact: Any) -> Path:
        asked.append(artifact)
        return Path("file")

    monkeypatch.setattr("jgo.maven._core.Artifact.resolve", resolve)
    for coordinate in ("g:a:1", REGISTRY):
        Artifact(coordinate=coordinate, size_bytes=0, sha256="").fetch(context)
    assert [(a.packaging, a.classifier) for a in asked] == [("jar", ""), ("tar.gz", "all")]


def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert artifacts.cache_dir() == tmp_path / "xdg" / "forecast-worker"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(artifacts, "sys", SimpleNamespace(platform="linux"))
    assert artifacts.cache_dir() == tmp_path / ".cache" / "forecast-worker"
    monkeypatch.setattr(artifacts, "sys", SimpleNamespace(platform="darwin"))
    assert artifacts.cache_dir() == tmp_path / "Library" / "Caches" / "forecast-worker"
    assert artifacts.cache_dir().is_dir()


def test_an_archive_is_unpacked_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "file", "lib/file")
    artifacts.unpack(archive, tmp_path / "home")
    assert (tmp_path / "home" / "lib" / "file").read_text() == "content"
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises((tarfile.ReadError, EOFError)):
        artifacts.unpack(archive, tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "a.tar.gz", "home"}


def test_progress_adds_up_and_never_passes_the_total() -> None:
    told: list[tuple[str, int, int]] = []
    meter = Meter("things", 10, lambda *args: told.append(args))
    with meter.file("a", 6) as first, meter.file("b", 4) as second:
        first(6)
        second(3)
        second(3)
    assert told == [("downloading things", done, 10) for done in (6, 9, 10)]
