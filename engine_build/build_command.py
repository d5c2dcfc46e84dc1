"""`engine-build build`: from an ONNX file to a published version."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from engine_build.allowances import parse_allowances
from engine_build.calibration import Calibration, calibration_from_parquet
from engine_build.cards import find_card, golden_of, started
from engine_build.device import find_gpu, runtime_api
from engine_build.errors import InputError, PlanError
from engine_build.evaluation import load_evaluation
from engine_build.explain import explained
from engine_build.graph import Graph, load_graph
from engine_build.ingredients import Data, gather, wanted_precisions
from engine_build.kafka_access import parse_topic_source
from engine_build.members import Members
from engine_build.plan import PlanOrder, Site
from engine_build.profile_command import access_of, add_access_options
from engine_build.progress import Display
from engine_build.publish import Publisher
from engine_build.release import Outcome, make_release, require_published
from engine_build.report import render
from engine_build.store_commands import show_plans
from engine_build.topic_rows import calibration_from_topic
from engine_build.traffic import parse_profile, profile_of
from engine_build.trt import NAMES, Library, load_library
from schemas.card_signature import load_private_key
from schemas.engine_card import EngineCard
from schemas.load import load_schema
from schemas.model_store import Version, open_version

_TARGET = re.compile(r"sm(\d+)(\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is known before anything is built. published: the version, if it is there already."""

    graph: Graph
    data: Data
    site: Site
    order: PlanOrder
    published: Version | None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command; it sets `run`."""
    text = "build, prove and publish plans"
    parser = commands.add_parser("build", help=text, description=f"{text.capitalize()} from an ONNX file.")
    parser.set_defaults(run=run)
    parser.add_argument("--onnx", type=Path, required=True, metavar="M", help="the model, FP32")
    parser.add_argument("--out", type=Path, required=True, metavar="MODELS/", help="folder of models to publish to")
    parser.add_argument("--precision", choices=("auto", "fp32", "fp16", "int8"), default="auto", help="(auto)")
    parser.add_argument(
        "--profile", default="auto", metavar="MIN:OPT:MAX[@ROWS,...]|auto", help="auto: the card's, from two rows on"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--calibration", metavar="FILE.parquet|topic://NAME?days=7", help="rows to find INT8 scales from")
    data.add_argument("--allow-thin-calibration", action="store_true", help="take rows that cover too little")
    data.add_argument("--allow-constant", action="append", default=[], metavar="COLUMN", help="may be constant")
    data.add_argument(
        "--evaluation", type=Path, metavar="FILE.parquet", help="rows with `actual`, to judge accuracy by"
    )
    data.add_argument(
        "--tolerance",
        action="append",
        default=[],
        metavar="PRECISION=POINTWISE:SUMMED",
        help="by how much plans may differ from FP32 (fp16=0.01:0.002, int8=0.25:0.03)",
    )
    data.add_argument("--schema", type=Path, help="feature schema (the packaged one)")
    add_access_options(data)  # type: ignore[arg-type]  # a group takes options as a parser does
    model = parser.add_argument_group("model")
    model.add_argument("--card", type=Path, help="the model's card (card.json beside the model)")
    model.add_argument("--model", help="name to publish under (the card's)")
    model.add_argument("--version", help="version to publish (the card's)")
    model.add_argument("--quantiles", default="0.1,0.5,0.9", help="for a model without a card (0.1,0.5,0.9)")
    site = parser.add_argument_group("TensorRT")
    site.add_argument("--target", default="", metavar="sm80,sm89", help="GPU types to build for instead of this one")
    site.add_argument("--runtime", choices=("auto", *NAMES), default="auto", help="(auto)")
    site.add_argument("--workspace-mib", type=_positive, help="most scratch memory (the library's own limit)")
    site.add_argument(
        "--optimization-level",
        type=int,
        choices=range(6),
        help="0: quick to build, 5: tries the most kernels (the library's own)",
    )
    site.add_argument(
        "--members",
        choices=get_args(Members),
        default="auto",
        help="of an ensemble: in-turn needs less memory, together was faster for some batches (auto: in-turn for INT8 without "
        "recurrent layers)",
    )
    site.add_argument("--timing-cache", type=Path, metavar="FOLDER", help="makes later builds on the same GPU faster")
    out = parser.add_argument_group("outcome")
    out.add_argument("--keep-current", action="store_true", help="publish, but let CURRENT be")
    out.add_argument("--sign-key", type=Path, metavar="KEY.pem", help="sign the card with this Ed25519 key")
    out.add_argument(
        "--json", type=Path, metavar="FILE", help="write the report as JSON, also if nothing was published"
    )
    out.add_argument("--explain", action="store_true", help="say what would be done and why, and do nothing")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """See the module."""
    planned = _planned(arguments, console)
    if arguments.explain:
        has_int8 = planned.data.calibration is not None or _published_int8(planned)
        precisions = wanted_precisions(arguments.precision, has_int8=has_int8)
        for line in explained(planned.graph, planned.site, planned.order, precisions, planned.published):
            console.print(line, highlight=False, soft_wrap=True)
        return 0
    key = None if arguments.sign_key is None else load_private_key(arguments.sign_key)
    outcome = _built(arguments, planned, console)
    if arguments.json is not None:
        _write_report(arguments.json, outcome.report)
    show_plans(console, outcome)
    release = require_published(outcome)
    published = Publisher(arguments.out, render=render, key=key).publish(
        release, make_current=not arguments.keep_current
    )
    state = (
        "is current" if published.is_current else f"isn't current: `engine-build use` makes it {release.card.version}"
    )
    added = "published" if published.is_new else "plans added to"
    console.print(f"{added} {published.folder}; it {state}", highlight=False, soft_wrap=True)
    return 0


def _planned(arguments: argparse.Namespace, console: Console) -> Plan:
    allowances = parse_allowances(arguments.tolerance)
    schema = load_schema(arguments.schema, "sku_features")
    graph = load_graph(arguments.onnx, schema)
    for note in graph.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    calibration = _calibration(arguments, graph, schema)
    if calibration is not None:
        console.print(calibration.coverage.table())
    evaluation = None
    if arguments.evaluation is not None:
        evaluation = load_evaluation(arguments.evaluation, graph.inputs, graph.horizon, schema)
    proposal = None if arguments.profile == "auto" else parse_profile(arguments.profile)
    columns = None if calibration is None else calibration.columns
    card = started(
        find_card(arguments.onnx, arguments.card),
        graph,
        schema,
        columns,
        model=arguments.model,
        version=arguments.version,
        profile=None if proposal is None else proposal.profile,
        quantiles=_quantiles(arguments.quantiles),
    )
    golden = golden_of(card, graph, columns)
    site = _site(arguments)
    order = PlanOrder(
        card=card,
        golden=golden,
        profiles=(profile_of(card.profile) if proposal is None else proposal.profile,),
        cuda_graph_rows=() if proposal is None else proposal.cuda_graph_rows,
        members=arguments.members,
        workspace_bytes=None if arguments.workspace_mib is None else arguments.workspace_mib << 20,
        optimization_level=arguments.optimization_level,
        timing_cache=None if arguments.timing_cache is None else arguments.timing_cache / f"{site.label}.cache",
        allowances=allowances,
    )
    data = Data(golden=golden, calibration=calibration, evaluation=evaluation)
    return Plan(graph=graph, data=data, site=site, order=order, published=_published(arguments.out, card))


def _built(arguments: argparse.Namespace, planned: Plan, console: Console) -> Outcome:
    with (
        tempfile.TemporaryDirectory(prefix="engine-build-") as folder,
        Display(console, tells_progress=planned.site.library.has_progress) as display,
    ):
        ingredients = gather(
            planned.graph,
            planned.order.card,
            planned.data,
            arguments.precision,
            planned.published,
            Path(folder),
        )
        return make_release(
            planned.site,
            planned.order,
            ingredients,
            progress_of=display.of,
            clock_s=time.monotonic,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _write_report(path: Path, report: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            str(path), [f"the report can't be written: {error.strerror}; nothing was published, name another --json"]
        ) from error


def _calibration(arguments: argparse.Namespace, graph: Graph, schema: Mapping[str, Any]) -> Calibration | None:
    options: dict[str, Any] = {
        "allow_thin": arguments.allow_thin_calibration,
        "allow_constant": arguments.allow_constant,
    }
    if arguments.calibration is None:
        return None
    if "://" in arguments.calibration:
        source = parse_topic_source(arguments.calibration)
        return calibration_from_topic(source, access_of(arguments), graph.inputs, schema, **options)
    return calibration_from_parquet(Path(arguments.calibration), graph.inputs, schema, **options)


def _site(arguments: argparse.Namespace) -> Site:
    cuda = runtime_api()
    targets = _targets(arguments.target)
    site = Site(library=_library(arguments.runtime, targets), cuda=cuda, gpu=find_gpu(cuda), targets=targets)
    if not site.capabilities:
        raise PlanError("there is nothing to build for")
    return site


def _library(asked: str, targets: tuple[str, ...]) -> Library:
    """The library asked for; `auto` takes TensorRT-RTX for targets, else TensorRT before it."""
    order = ("tensorrt_rtx",) if targets else NAMES
    for name in NAMES:
        if asked == name or (asked == "auto" and name in order):
            found = load_library(name)
            if found is not None:
                return found
    wanted = asked if asked != "auto" else " or ".join(order)
    raise PlanError(f"{wanted} isn't installed; install forecast-worker[gpu] (tensorrt) or forecast-worker[rtx]")


def _targets(text: str) -> tuple[str, ...]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    found = [_TARGET.fullmatch(name) for name in names]
    wrong = [name for name, match in zip(names, found, strict=True) if match is None]
    if wrong:
        raise InputError("--target", [f"got {', '.join(wrong)}, expected names as in sm80,sm89"])
    return tuple(dict.fromkeys(f"{match[1]}.{match[2]}" for match in found if match is not None))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number above 0")
    return value


def _quantiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise InputError("--quantiles", [f"got {text!r}, expected numbers as in 0.1,0.5,0.9"]) from error


def _published(models: Path, card: EngineCard) -> Version | None:
    """The version, if it is published already with this very model. Another model under its name is found out later."""
    store = models / card.model
    if not (store / card.version).is_dir():
        return None
    version = open_version(store, card.version)
    return version if version.digest == card.onnx_sha256 else None


def _published_int8(planned: Plan) -> bool:
    return planned.published is not None and "int8" in planned.published.card.graphs
