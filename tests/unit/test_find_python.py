import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "find_python.sh"
TOO_OLD = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n'


def find(path: Path, argument: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", SCRIPT, argument], env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


def old(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(TOO_OLD)
    path.chmod(0o755)
    return path


def test_the_one_that_is_named_is_used(tmp_path: Path) -> None:
    done = find(tmp_path, sys.executable)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)


def test_one_that_is_named_and_too_old_is_refused(tmp_path: Path) -> None:
    path = old(tmp_path, "python3.9")
    done = find(tmp_path, str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"PYTHON={path} can't be used: got Python 3.9.1, expected CPython 3.11 or newer" in done.stderr


@pytest.mark.parametrize("name", ["python3", "python3.11", "python3.12", "python3.13"])
def test_a_suitable_one_is_found_behind_unsuitable_ones(tmp_path: Path, name: str) -> None:
    for other in {"python3", "python3.11", "python3.12", "python3.13"} - {name}:
        old(tmp_path, other)
    (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / name).chmod(0o755)
    done = find(tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / name))


def test_none_that_suits_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    old(tmp_path, "python3")
    done = find(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "python3 is Python 3.9.1, expected CPython 3.11 or newer" in done.stderr
    assert "make PYTHON=" in done.stderr
