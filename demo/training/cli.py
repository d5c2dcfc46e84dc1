"""The command line of training: train, baselines, precision, accuracy, report, timing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from demo.training.forecasts import write_baselines
from demo.training.tasks import TASKS
from demo.training.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    options = _parser().parse_args(arguments)
    options.run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train one model: model.onnx and report.json")
    _task_options(training)
    training.add_argument("--architecture", help="lstm, transformer or tsmixer; default: the data set's primary")
    training.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--no-graphs", action="store_true", help="launch kernels one by one instead of by a CUDA graph")
    training.set_defaults(run=_train)
    baselines = commands.add_parser("baselines", help="forecast the test days with every baseline: one .npz each")
    _task_options(baselines)
    baselines.add_argument("--only", choices=("rules", "ets", "boosting"))
    baselines.set_defaults(run=_baselines)
    return parser


def _task_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=sorted(TASKS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")


def _train(options: argparse.Namespace) -> None:
    task = TASKS[options.data]
    architecture = options.architecture or next(iter(task.recipes))
    report = train(task, architecture, options.out, device=torch.device(options.device), seed=options.seed, graphs=not options.no_graphs)
    print({name: report[name] for name in ("data", "architecture", "parameters", "seconds", "test")})


def _baselines(options: argparse.Namespace) -> None:
    write_baselines(TASKS[options.data], options.out, only=options.only)
