"""Every committed model at every precision becomes a real plan, by TensorRT-RTX and without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine_build.errors import GraphError, PlanError
from engine_build.graph import load_graph
from engine_build.members import arranged
from engine_build.precision import Workpiece, write_fp16, write_int8
from engine_build.prove import prove_structure
from engine_build.trt import Library, load_library
from engine_build.trt_types import BuildRequest, Built
from schemas.engine_card import EngineCard, Precision, Profile, load_card
from schemas.load import load_schema

MODELS = Path(__file__).parents[2] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/card.json"))
PROFILE = Profile(min_rows=1, opt_rows=512, max_rows=8192)
ROWS = 64


@pytest.fixture(scope="module")
def library() -> Library:
    found = load_library("tensorrt_rtx")
    if found is None:
        pytest.skip("tensorrt_rtx isn't installed: it has wheels for Linux on x86-64 only")
    return found


def rows_like(card: EngineCard) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """The golden rows over and over, sales scaled."""
    inputs = {
        name: np.resize(np.asarray(values, np.float32), (ROWS, *np.asarray(values).shape[1:]))
        for name, values in card.golden.inputs.items()
    }
    scale = np.random.default_rng(5).lognormal(0, 0.4, (ROWS, 1)).astype(np.float32)
    return inputs | {"sales": inputs["sales"] * scale}


def graph_at(precision: Precision, name: str, card: EngineCard, folder: Path) -> bytes:
    source, target = MODELS / name / "model.onnx", folder / "graph.onnx"
    if precision == "fp32":
        return source.read_bytes()
    if precision == "fp16":
        write_fp16(Workpiece(source, rows_like(card)), target)
    else:
        write_int8(Workpiece(source, rows_like(card)), target, methods=("minmax",))
    return target.read_bytes()


def build(library: Library, graph: bytes, precision: Precision) -> Built:
    request = BuildRequest(
        source="test",
        graph=arranged(graph, precision),
        precision=precision,
        profiles=(PROFILE,),
        targets=("8.0", "8.9"),
    )
    return library.build(request)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_committed_model_builds(library: Library, tmp_path: Path, name: str, precision: Precision) -> None:
    card = load_card(MODELS / name / "card.json")
    load_graph(MODELS / name / "model.onnx", load_schema(None, "sku_features"))
    built = build(library, graph_at(precision, name, card, tmp_path), precision)
    prove_structure(built.tensors, card, [PROFILE])
    assert len(built.plan) > 10_000
    assert built.layers > 10


def test_a_truncated_plan_is_not_loaded_and_the_reason_is_told(library: Library) -> None:
    built = build(library, (MODELS / "bakery-smoother" / "model.onnx").read_bytes(), "fp32")
    with pytest.raises(PlanError, match="the file is damaged or of another version"):
        library.facts(built.plan[: len(built.plan) // 2])


def test_a_truncated_model_is_refused(library: Library) -> None:
    with pytest.raises(GraphError):
        build(library, (MODELS / "bakery-smoother" / "model.onnx").read_bytes()[:1000], "fp32")
