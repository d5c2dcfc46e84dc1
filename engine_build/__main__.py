"""`engine-build`: the command line. What is wrong is one message on standard error; only a bug comes with a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from engine_build.cli import PROGRAM, build_parser
from engine_build.errors import BuildError, InputError, PublishError
from schemas.card_signature import SignatureError
from schemas.engine_card import CardError
from schemas.load import SchemaError
from schemas.model_store import StoreError

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""As shells count a process that ended by SIGINT or SIGPIPE."""


class _Console(Console):
    """Leaves a pipe whose reader is gone to `main`; by itself it would end the process with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments, _Console())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _failed("interrupted; CURRENT and every published version are whole", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the process ends here; what isn't known is a bug
        return _failed(*_told(error))
    return code


def _told(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code. Of a bug, the traceback is printed before."""
    match error:
        case BuildError():
            return str(error), error.exit_code
        case StoreError():
            return str(error), PublishError.exit_code
        case CardError() | SchemaError() | SignatureError():
            return str(error), InputError.exit_code
        case _:
            traceback.print_exception(error)
            return _bug(error), BuildError.exit_code


def _bug(error: Exception) -> str:
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}:{last.lineno} in {last.name}"
    return (
        f"unexpected {type(error).__name__} at {place}: {error}\n"
        "  CURRENT and every published version are whole. Please report it with the traceback above; exit codes and\n"
        "  known troubles are in docs/engines.md"
    )


def _failed(message: str, code: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)  # noqa: T201 - the message a person reads
    return code


if __name__ == "__main__":
    raise SystemExit(main())
