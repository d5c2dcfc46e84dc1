"""The two scripts for a session on a GPU, with stand-ins for what they start."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Writes down what it was asked to do, and fails at the topics and at the training."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'case "$*" in *freshretailnet\\ --events*) exit 3;; *training\\ train*) exit 4;; esac\n'
        'echo "12 passed in 1 s"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def run(script: str, tmp_path: Path, python: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "inputs").mkdir(exist_ok=True)
    command = [f"tools/{script}.sh", str(tmp_path / "inputs"), str(tmp_path / "out"), *steps]
    variables = {"PY": str(python), "TORCH_PY": str(python), "WORK": str(tmp_path / "work")}
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text(encoding="utf-8").splitlines()


def test_a_step_that_fails_does_not_stop_the_others(tmp_path: Path, python: Path) -> None:
    done = run("gpu_session", tmp_path, python, "tests", "models", "topics", "swaps", "broken", "builds")
    assert done.returncode == 1
    assert len(asked(tmp_path)) == 6
    ends = [line.split()[:3] for line in done.stdout.splitlines() if " exit " in line]
    assert ends == [
        ["tests", "exit", "0"],
        ["models", "exit", "0"],
        ["topics", "exit", "3"],
        ["swaps", "exit", "0"],
        ["broken", "exit", "0"],
        ["builds", "exit", "0"],
    ]
    assert done.stdout.endswith("steps that failed: 1\n")
    log = (tmp_path / "out" / "session.log").read_text(encoding="utf-8")
    assert log.count("== ") == 6
    assert log.count("12 passed") == 5


@pytest.mark.parametrize("script", ["gpu_session", "gpu_training"])
def test_a_step_that_is_not_there_is_refused(tmp_path: Path, python: Path, script: str) -> None:
    done = run(script, tmp_path, python, "dance")
    assert done.returncode == 64
    assert "got step 'dance', expected" in done.stderr


def test_every_step_is_in_the_usage() -> None:
    done = subprocess.run(["tools/gpu_session.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64
    text = (ROOT / "tools" / "gpu_session.sh").read_text(encoding="utf-8")
    steps = re.findall(r"^    (\w+)\) ?", text.partition("\nfor name in")[2], re.MULTILINE)
    assert len(steps) == 12
    assert [step for step in steps if not re.search(rf"^#     {step} ", done.stderr, re.MULTILINE)] == []


def test_files_of_the_named_tests_and_modules_exist(tmp_path: Path, python: Path) -> None:
    run("gpu_session", tmp_path, python, "check", "tests", "leaks", "build", "auto", "builds")
    words = {word.partition("::")[0] for line in asked(tmp_path) for word in line.split()}
    files = {word for word in words if word.startswith("tests/")}
    assert files
    assert all((ROOT / file).exists() for file in files)


def test_a_training_that_fails_does_not_stop_the_timing(tmp_path: Path, python: Path) -> None:
    done = run("gpu_training", tmp_path, python, "train", "pytorch")
    assert done.returncode == 1
    assert [" ".join(line.split()[:3]) for line in asked(tmp_path)] == [
        "-m demo.training train",
        "-m demo.training timing",
    ]
    assert "steps that failed: 1" in done.stdout
