"""The command line's grammar. Nothing is done here."""

from __future__ import annotations

import argparse

from engine_build import build_command, profile_command, store_commands

PROGRAM = "engine-build"

_EPILOG = """\
examples:
  engine-build build --onnx models/bakery-transformer/model.onnx --profile 2:512:8192 \\
      --calibration events.parquet --out /models                     on the GPU that will serve
  engine-build build --onnx model.onnx --target sm80,sm89 --out /models   without a GPU, by TensorRT-RTX
  engine-build profile --prometheus metrics.txt                     a value for --profile
  engine-build verify /models/bakery-transformer
  engine-build use /models/bakery-transformer 6                     roll back to version 6
  engine-build gc /models/bakery-transformer --keep 5

exit codes:
   0  done
   2  what was given can't be used: model, card, calibration, profile, keys; nothing was published
   6  no precision was accurate enough; nothing was published
   7  TensorRT refused to build or to load, or the GPU's memory doesn't suffice
   8  a plan computes something else than ONNX Runtime in FP32; it wasn't published
   9  the folder of models can't be written, or isn't as it should be
  70  a bug: please report it with its traceback
 130  interrupted; 141: whoever read the output is gone
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser. Its result has `run`, a function of the arguments and a console that returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Builds TensorRT engines from ONNX models, proves them, and publishes them for workers to load.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    build_command.add_parser(commands)
    profile_command.add_parser(commands)
    store_commands.add_parsers(commands)
    return parser
