"""The command line of training: train, compare, baselines, accuracy, precisions, report, timing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from demo.training import accuracy, report, retraining, timing
from demo.training.forecasts import write_baselines
from demo.training.tasks import TASKS
from demo.training.train import train

MODELS: Final = Path("models")
RESULTS: Final = Path("bench/results")
DOCS: Final = Path("docs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    options = _parser().parse_args(arguments)
    options.run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_train(commands.add_parser("train", help="train one model: model.onnx and report.json"))
    command = commands.add_parser("baselines", help="forecast the test days with every baseline: one .npz each")
    _add_task(command)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--only", choices=("rules", "ets", "boosting"))
    command.set_defaults(run=lambda o: write_baselines(TASKS[o.data], o.out, only=o.only))
    command = commands.add_parser(
        "accuracy", help="models in every precision and baselines on the test days; engine cards"
    )
    _add_task(command)
    command.add_argument("--models", type=Path, default=MODELS)
    command.add_argument(
        "--baselines",
        type=Path,
        help="folder of the baselines; missing ones are made. Without it their numbers stay those of the file in --out",
    )
    command.add_argument("--out", type=Path, default=RESULTS)
    command.add_argument("--threads", type=int, default=0, help="of ONNX Runtime; 0: all cores")
    command.set_defaults(run=lambda o: accuracy.measure(TASKS[o.data], o.models, o.baselines, o.out, threads=o.threads))
    command = commands.add_parser(
        "precisions", help="write <model>.<precision>.onnx of every model, for `python -m bench tensorrt`"
    )
    command.add_argument("--models", type=Path, default=MODELS)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=lambda o: accuracy.write_precisions(list(TASKS.values()), o.models, o.out))
    command = commands.add_parser("report", help="docs/accuracy.md and its plots from the measured numbers")
    command.add_argument("--results", type=Path, default=RESULTS)
    command.add_argument("--docs", type=Path, default=DOCS)
    command.set_defaults(run=lambda o: report.write(o.results, o.docs))
    command = commands.add_parser("compare", help="a model trained anew against the committed one: within 2 %%?")
    command.add_argument("--report", type=Path, required=True, help="report.json of the new one")
    command.add_argument("--models", type=Path, default=MODELS)
    command.set_defaults(run=_compare)
    command = commands.add_parser("timing", help="one forward pass by PyTorch on the GPU, at five batch sizes")
    command.add_argument("--out", type=Path, default=RESULTS)
    command.add_argument("--only", default="", help="part of the wanted models' names")
    command.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    command.set_defaults(run=lambda o: timing.measure(o.out, compiled=not o.no_compile, only=o.only))
    return parser


def _add_train(command: argparse.ArgumentParser) -> None:
    _add_task(command)
    command.add_argument("--out", type=Path, help="folder to write to; default models/<data>-<model>")
    command.add_argument("--model", help="a recipe of demo/training/tasks.py; default: the data set's primary")
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument(
        "--no-graphs", action="store_true", help="launch kernels one by one instead of by a CUDA graph"
    )
    command.set_defaults(run=_train)


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=sorted(TASKS), required=True)


def _compare(options: argparse.Namespace) -> None:
    if not retraining.compare(options.report, options.models):
        raise SystemExit(1)


def _train(options: argparse.Namespace) -> None:
    task = TASKS[options.data]
    name = options.model or next(iter(task.recipes))
    out = options.out or MODELS / f"{task.name}-{name}"
    result = train(
        task, name, out, device=torch.device(options.device), seed=options.seed, graphs=not options.no_graphs
    )
    print({key: result[key] for key in ("data", "model", "parameters", "seconds", "test")})
