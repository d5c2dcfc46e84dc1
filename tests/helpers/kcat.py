"""kcat with a schema registry's client, a consumer that shares no code with this project or with its Python clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache


@cache
def find_kcat() -> str | None:
    """The program that `KCAT` names, or `kcat` on the path, if it was built with Avro; else None (`tools/build_kcat.sh`)."""
    program = os.environ.get("KCAT") or shutil.which("kcat")
    if program is None:
        return None
    done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=30, check=False)
    return program if "Avro" in done.stdout + done.stderr else None
