"""`engine-build`: the command line. What is wrong is one message on standard error, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from engine_build.cli import PROGRAM, build_parser
from engine_build.errors import BuildError, InputError, PublishError
from schemas.card_signature import SignatureError
from schemas.engine_card import CardError
from schemas.load import SchemaError
from schemas.model_store import StoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments, Console())
    except BuildError as error:
        return _failed(str(error), error.exit_code)
    except StoreError as error:
        return _failed(str(error), PublishError.exit_code)
    except (CardError, SchemaError, SignatureError) as error:
        return _failed(str(error), InputError.exit_code)
    return code


def _failed(message: str, code: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)  # noqa: T201 - the message a person reads
    return code


if __name__ == "__main__":
    raise SystemExit(main())
