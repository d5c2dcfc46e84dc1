"""`engine-build verify`, `inspect`, `list`, `use`, `sign` and `gc`: looking after what was published."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine_build.device import find_gpu, runtime_api
from engine_build.errors import InputError
from engine_build.release import Outcome
from engine_build.store import collect_garbage, listed, sign_version, use_version, verify_version
from engine_build.trt import NAMES, load_library
from schemas.card_signature import load_private_key, load_public_keys
from schemas.engine_card import CARD_NAME, Plan, load_card
from schemas.model_store import current_name, is_store, require_digest
from schemas.plan_choice import plan_problems

Command = Callable[[argparse.Namespace, Console], int]


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the six commands; each sets `run`."""
    verify = _command(commands, "verify", "check all digests, and the signature if keys are given", _verify)
    verify.add_argument("folder", type=Path, help="a version's folder, or a model's: then all its versions")
    verify.add_argument("--trust", type=Path, action="append", default=[], metavar="KEY.pub", help="a public key, PEM")

    inspect = _command(commands, "inspect", "what a version, or one of its plans, is", _inspect)
    inspect.add_argument("folder", type=Path, help="a version's folder, or a model's: then its current version")
    inspect.add_argument("--layers", action="store_true", help="load each plan that fits this GPU and list its layers")

    shown = _command(commands, "list", "all versions of a model", _list)
    shown.add_argument("store", type=Path, help="a model's folder")

    use = _command(commands, "use", "make a version current: roll forward or back", _use)
    use.add_argument("store", type=Path, help="a model's folder")
    use.add_argument("version")

    sign = _command(commands, "sign", "sign a version's card", _sign)
    sign.add_argument("store", type=Path, help="a model's folder")
    sign.add_argument("version")
    sign.add_argument("--key", type=Path, required=True, metavar="KEY.pem", help="an Ed25519 private key")

    gc = _command(commands, "gc", "remove old versions, never the current one", _gc)
    gc.add_argument("store", type=Path, help="a model's folder")
    gc.add_argument("--keep", type=int, required=True, metavar="N", help="how many of the newest stay")
    gc.add_argument("--pin", action="append", default=[], metavar="VERSION", help="stays, whatever its age")


def show_plans(console: Console, outcome: Outcome) -> None:
    """What came of each plan of a build, and why which one is published."""
    rows = []
    for plan in outcome.plans:
        speed = "-" if plan.measurement is None else f"{plan.measurement.rows_per_s:,.0f}"
        size = "-" if plan.entry is None else f"{plan.entry.size_bytes / 2**20:,.1f}"
        proved = "no" if plan.entry is None else plan.entry.proved
        rows.append((plan.precision, f"{plan.built_s:.1f}", size, proved, speed))
    console.print(_card_table("plans", ("precision", "built in s", "MiB", "proved on", "rows/s"), rows))
    for reason in outcome.decision.reasons:
        console.print(f"- {reason}", highlight=False, soft_wrap=True)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, run: Command
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    trusted = load_public_keys(arguments.trust)
    folders = _folders(arguments.folder)
    wrong = 0
    for folder in folders:
        problems = verify_version(folder, trusted)
        wrong += bool(problems)
        console.print(f"{folder}: {'wrong' if problems else 'whole'}", highlight=False)
        for problem in problems:
            console.print(f"  - {problem}", highlight=False, soft_wrap=True)
    return 9 if wrong else 0


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
    (folder, *_) = _folders(arguments.folder, current=True)
    card = load_card(folder / CARD_NAME)
    console.print(f"{card.model} version {card.version}: horizon {card.horizon}, quantiles {list(card.quantiles)}")
    console.print(f"model.onnx {card.onnx_sha256}", highlight=False, soft_wrap=True)
    console.print(_card_table("inputs and output", ("name", "shape"), _tensor_rows(folder)))
    gpu = find_gpu(runtime_api())
    libraries = [library for name in NAMES if (library := load_library(name)) is not None]
    rows = []
    for plan in card.plans:
        fit = (
            "no GPU here"
            if gpu is None
            else "; ".join(plan_problems(plan, gpu, [library.runtime for library in libraries]))
        )
        rows.append((*_plan_row(plan), fit or "fits this GPU"))
    heads = ("plan", "precision", "rows", "MiB", "proved on", "here")
    console.print(_card_table("plans", heads, rows))
    if not arguments.layers:
        return 0
    for plan in card.plans:
        chosen = [each for each in libraries if each.runtime.name == plan.runtime]
        if gpu is None or not chosen or plan_problems(plan, gpu, [chosen[0].runtime]):
            console.print(f"{plan.file}: can't be loaded here, so its layers can't be listed")
            continue
        require_digest(folder / plan.file, plan.sha256)
        facts = chosen[0].facts((folder / plan.file).read_bytes())
        console.print(f"{plan.file}: {facts.device_memory_bytes / 2**20:,.1f} MiB of activations")
        console.print_json(facts.layers)
    return 0


def _list(arguments: argparse.Namespace, console: Console) -> int:
    rows = []
    for each in listed(arguments.store):
        plans = "-" if each.card is None else "\n".join(_short(plan) for plan in each.card.plans) or "none"
        signed = each.card is not None and each.card.signature is not None
        marks = [text for text, there in (("current", each.is_current), ("signed", signed)) if there]
        rows.append((each.name, ", ".join(marks), f"{each.size_bytes / 2**20:,.1f}", each.problem or plans))
    console.print(_card_table(str(arguments.store), ("version", "", "MiB", "plans"), rows))
    return 0


def _use(arguments: argparse.Namespace, console: Console) -> int:
    before = current_name(arguments.store) if is_store(arguments.store) else "none"
    use_version(arguments.store, arguments.version)
    console.print(
        f"current: {arguments.version} (was {before}); workers that watch the folder take it up by themselves"
    )
    return 0


def _sign(arguments: argparse.Namespace, console: Console) -> int:
    sign_version(arguments.store, arguments.version, load_private_key(arguments.key))
    console.print(f"signed: {arguments.store / arguments.version}")
    return 0


def _gc(arguments: argparse.Namespace, console: Console) -> int:
    removed = collect_garbage(arguments.store, keep=arguments.keep, pinned=arguments.pin)
    console.print(f"removed: {', '.join(removed) or 'nothing'}")
    return 0


def _folders(path: Path, *, current: bool = False) -> list[Path]:
    """The version folders that `path` means."""
    if (path / CARD_NAME).is_file():
        return [path]
    if not path.is_dir():
        raise InputError(str(path), ["isn't there; expected the folder of a version or of a model"])
    if current:
        return [path / current_name(path)]
    found = [folder for folder in sorted(path.iterdir()) if (folder / CARD_NAME).is_file() and folder.name[0] != "."]
    if not found:
        raise InputError(str(path), [f"holds no version; expected folders with {CARD_NAME}"])
    return found


def _card_table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _tensor_rows(folder: Path) -> list[tuple[str, ...]]:
    card = load_card(folder / CARD_NAME)
    return [(tensor.name, json.dumps(list(tensor.shape))) for tensor in (*card.inputs, *card.outputs)]


def _plan_row(plan: Plan) -> tuple[str, ...]:
    rows = ", ".join(f"{each.min_rows}:{each.opt_rows}:{each.max_rows}" for each in plan.profiles)
    return (plan.file, plan.precision, rows, f"{plan.size_bytes / 2**20:,.1f}", plan.proved)


def _short(plan: Plan) -> str:
    where = plan.gpu or f"compute capability {', '.join(plan.compute_capabilities)}"
    return f"{plan.precision} for {where}, {plan.runtime} {plan.runtime_version}"
