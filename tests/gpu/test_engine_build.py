"""engine-build on a GPU: every precision built, proved and measured for real, published, and loaded by the worker's engine."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine_build.__main__ import main
from engine_build.device import find_gpu, free_bytes, runtime_api
from engine_build.device_run import DeviceRunner
from engine_build.errors import PlanError
from engine_build.members import Members
from engine_build.plan import GraphBytes, PlanOrder, Site, build_plan
from engine_build.precision import Workpiece, write_fp16, write_int8
from engine_build.prove import Golden, proof_sizes
from engine_build.store import verify_version
from schemas.engine_card import EngineCard, Precision, Profile, load_card
from schemas.plan_choice import select_plan
from tests.helpers.real_gpu import builder, require_gpu

MODELS = Path(__file__).parents[2] / "models"
PRIMARY = ("freshretailnet-transformer", "bakery-transformer")
PROFILE = Profile(min_rows=2, opt_rows=2048, max_rows=8192)
SHORT = Profile(min_rows=1, opt_rows=64, max_rows=512)
FIVE_MINUTES_S = 300.0
ROUNDS = 200
FAILURES = 50


@pytest.fixture(scope="module")
def site() -> Site:
    require_gpu()
    cuda = runtime_api()
    return Site(library=builder(), cuda=cuda, gpu=find_gpu(cuda))


def rows_like(card: EngineCard, rows: int) -> dict[str, Any]:
    """The golden rows over and over, sales scaled, over 20 days, some of them with promotions."""
    random = np.random.default_rng(5)
    columns: dict[str, Any] = {
        name: np.resize(np.asarray(values, np.float32), (rows, *np.asarray(values).shape[1:]))
        for name, values in card.golden.inputs.items()
    }
    columns["sales"] = (columns["sales"] * random.lognormal(0, 0.5, (rows, 1))).astype(np.float32)
    columns["as_of"] = (19_800 + np.arange(rows) % 20).astype(np.float32)
    if "promo" in columns:
        columns["promo"] = (random.uniform(size=columns["promo"].shape) < 0.1).astype(np.float32)
    return columns


def graph_at(precision: Precision, name: str, card: EngineCard, folder: Path) -> GraphBytes:
    source, target = MODELS / name / "model.onnx", folder / "graph.onnx"
    if precision == "fp32":
        return GraphBytes.of(precision, source.read_bytes())
    rows = rows_like(card, 256)
    (write_fp16 if precision == "fp16" else write_int8)(Workpiece(source, rows), target)
    return GraphBytes.of(precision, target.read_bytes())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", PRIMARY)
def test_a_plan_is_built_proved_and_measured(site: Site, tmp_path: Path, name: str, precision: Precision) -> None:
    card = load_card(MODELS / name / "card.json")
    order = PlanOrder(card=card, golden=Golden.of_card(card), profiles=(PROFILE,))
    graph = graph_at(precision, name, card, tmp_path)
    plan = build_plan(site, order, graph, progress=None, clock_s=time.monotonic)
    assert plan.problems == ()
    assert plan.entry is not None
    assert plan.entry.proved == "device"
    assert plan.proof is not None
    assert plan.proof.sizes == proof_sizes(PROFILE)
    assert plan.measurement is not None
    assert plan.measurement.rows_per_s > 0
    assert all(0 < point.median_s <= point.p99_s for point in plan.measurement.points)


def test_members_in_turn_take_less_memory(site: Site) -> None:
    name = PRIMARY[0]
    card = load_card(MODELS / name / "card.json")
    graph = GraphBytes.of("fp32", (MODELS / name / "model.onnx").read_bytes())
    taken_bytes = {}
    choices: tuple[Members, ...] = ("together", "in-turn")
    for members in choices:
        order = PlanOrder(
            card=card, golden=Golden.of_card(card), profiles=(PROFILE,), members=members, optimization_level=1
        )
        plan = build_plan(site, order, graph, progress=None, clock_s=time.monotonic)
        assert plan.problems == ()
        assert plan.measurement is not None
        taken_bytes[members] = plan.measurement.device_memory_bytes
    assert taken_bytes["in-turn"] <= 0.75 * taken_bytes["together"]


@pytest.mark.parametrize("name", PRIMARY)
def test_auto_ends_in_five_minutes_and_publishes_what_fits_this_gpu(site: Site, tmp_path: Path, name: str) -> None:
    card = load_card(MODELS / name / "card.json")
    rows = tmp_path / "calibration.parquet"
    columns = rows_like(card, 720)
    pq.write_table(pa.table({key: pa.array(values.tolist()) for key, values in columns.items()}), rows)
    report = tmp_path / "report.json"
    command = ["build", "--onnx", str(MODELS / name / "model.onnx"), "--out", str(tmp_path / "models")]
    command += ["--profile", "2:2048:8192@2,64", "--calibration", str(rows), "--json", str(report)]
    command += ["--allow-thin-calibration", *(f"--allow-constant={key}" for key in columns)]
    began_s = time.monotonic()
    assert main(command) == 0
    assert time.monotonic() - began_s < FIVE_MINUTES_S
    folder = tmp_path / "models" / name / "1"
    assert verify_version(folder) == ()
    assert site.gpu is not None
    chosen = select_plan(load_card(folder / "card.json"), site.gpu, [site.library.runtime], rows=8192).plan
    assert chosen is not None
    content = json.loads(report.read_text())
    assert content["published"] == [chosen.precision]
    assert "Latency on" in (folder / "report.html").read_text()


def test_build_load_close_and_failed_loads_give_the_memory_back(site: Site) -> None:
    card = load_card(MODELS / "bakery-smoother" / "card.json")
    order = PlanOrder(card=card, golden=Golden.of_card(card), profiles=(SHORT,))
    graph = GraphBytes.of("fp32", (MODELS / "bakery-smoother" / "model.onnx").read_bytes())
    plan = build_plan(site, order, graph, progress=None, clock_s=time.monotonic).content
    for _ in range(10):  # CUDA and TensorRT load code lazily and keep it
        DeviceRunner(site.library, site.cuda, plan, SHORT).close()
    gc.collect()
    before_bytes = free_bytes(site.cuda)
    for _ in range(ROUNDS):
        DeviceRunner(site.library, site.cuda, plan, SHORT).close()
    for _ in range(FAILURES):
        with pytest.raises(PlanError):
            DeviceRunner(site.library, site.cuda, plan[: len(plan) // 2], SHORT)
    gc.collect()
    assert abs(free_bytes(site.cuda) - before_bytes) <= 0.01 * before_bytes


def test_a_batch_above_the_profile_is_refused(site: Site) -> None:
    card = load_card(MODELS / "bakery-smoother" / "card.json")
    order = PlanOrder(card=card, golden=Golden.of_card(card), profiles=(SHORT,))
    graph = GraphBytes.of("fp32", (MODELS / "bakery-smoother" / "model.onnx").read_bytes())
    plan = build_plan(site, order, graph, progress=None, clock_s=time.monotonic).content
    inputs = {name: np.resize(values, (513, *values.shape[1:])) for name, values in order.golden.inputs.items()}
    wide = Profile(min_rows=1, opt_rows=64, max_rows=1024)
    with DeviceRunner(site.library, site.cuda, plan, wide) as runner, pytest.raises(PlanError, match="513 rows"):
        runner.run(inputs)
