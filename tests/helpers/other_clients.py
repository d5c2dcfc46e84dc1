"""PySpark and PyFlink, each in a virtual environment of its own (`tools/other_clients.sh`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def find_client(name: str) -> Path | None:
    """The interpreter that has the client (`spark` or `flink`), in the folder that `OTHER_CLIENTS` names; else None."""
    folder = os.environ.get("OTHER_CLIENTS")
    program = Path(folder, name, "bin", "python") if folder else None
    return program if program and program.exists() else None


def run_client(name: str, script: Path, **environment: str) -> list[str]:
    """The lines that the script writes to its standard output, run by the client's interpreter."""
    program = find_client(name)
    assert program is not None
    done = subprocess.run(
        [str(program), str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYSPARK_PYTHON": str(program), "SPARK_LOCAL_IP": "127.0.0.1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
