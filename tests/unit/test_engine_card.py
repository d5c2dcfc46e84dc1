from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.engine_card import CardError, EngineCard, load_card, parse_card, sha256_hex, write_card
from tests.helpers.cards import card_content, plan_content

MODELS = Path(__file__).parents[2] / "models"
PLAN = plan_content(file="plans/h200-trt8.6.1-fp16.plan")
GRAPHS = {"fp16": {"file": "graphs/fp16.onnx", "sha256": "b" * 64}}


def parse(**changes: Any) -> EngineCard:
    return parse_card(json.dumps(card_content(**changes)), source="card.json")


def test_card_survives_writing_and_reading(tmp_path: Path) -> None:
    card = parse(
        plans=[PLAN],
        graphs=GRAPHS,
        output_histogram={"mean_of": "sales", "edges": [-1.0, 0.0, 1.0], "shares": [0.25, 0.75]},
    )
    write_card(card, tmp_path / "card.json")
    assert load_card(tmp_path / "card.json") == card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"horizon": "2"}, "horizon: Input should be a valid integer"),
        ({"horizon": 3}, "expected forecast"),
        ({"quantiles": [0.9, 0.1]}, "quantiles must ascend"),
        ({"quantiles": [0.1, 1.0]}, "quantiles.1: Input should be less than 1"),
        ({"profile": {"min_rows": 9, "opt_rows": 8, "max_rows": 64}}, "expected min <= opt <= max"),
        ({"precision": "fp64"}, "precision: Input should be"),
        ({"onnx_sha256": "abc"}, "onnx_sha256: String should match"),
        ({"plans": [PLAN, PLAN]}, "plans/h200-trt8.6.1-fp16.plan named more than once"),
        ({"plans": [PLAN | {"file": "../secret.plan"}]}, "plans.0.file: String should match"),
        ({"plans": [PLAN | {"file": "/etc/passwd"}]}, "plans.0.file: String should match"),
        ({"plans": [PLAN | {"profiles": []}]}, "plans.0.profiles"),
        ({"plans": [PLAN | {"compute_capabilities": ["sm90"]}]}, "plans.0.compute_capabilities.0"),
        ({"graphs": {"fp16": {"file": "graphs/.hidden", "sha256": "b" * 64}}}, "graphs.fp16.file"),
        ({"inputs": [{"name": "sales", "dtype": "float32", "shape": [3, "batch"]}]}, "expected 'batch' first"),
        ({"inputs": [{"name": "sales", "dtype": "int8", "shape": ["batch", 3]}]}, "inputs.0.dtype"),
        ({"outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 2, 2]}]}, "expected forecast"),
        (
            {"golden": card_content()["golden"] | {"inputs": {"sales": [[1.0, 2.0, 3.0]]}}},
            "expected one for each input",
        ),
        ({"golden": card_content()["golden"] | {"outputs": [[[1.0, 2.0], [1.0]]]}}, "golden.outputs"),
        (
            {"golden": card_content()["golden"] | {"inputs": {"sales": [[1.0, 2.0]], "price": [1.0]}}},
            "golden.inputs.sales: got shape (1, 2), expected (1, 3)",
        ),
        ({"output_histogram": {"mean_of": "sales", "edges": [0.0, 1.0, 2.0], "shares": [1.0]}}, "expected one less"),
        ({"output_histogram": {"mean_of": "sales", "edges": [0.0, 2.0, 1.0], "shares": [1.0, 0.0]}}, "must ascend"),
        ({"output_histogram": {"mean_of": "sales", "edges": [0.0, 1.0, 2.0], "shares": [0.1, 0.1]}}, "expected 1"),
    ],
)
def test_wrong_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError) as caught:
        parse(**changes)
    assert message in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(CardError) as caught:
        parse(colour="red", version="", horizon="2")
    assert len(caught.value.problems) == 3
    assert str(caught.value).startswith("engine card card.json:")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_card_is_refused(text: str | bytes) -> None:
    with pytest.raises(CardError):
        parse_card(text)


def test_nan_is_refused() -> None:
    text = json.dumps(card_content()).replace("-0.01", "NaN")
    with pytest.raises(CardError, match=r"accuracy\.fp32\.bias"):
        parse_card(text)


def test_missing_file_is_an_error_of_the_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="can't be read"):
        load_card(tmp_path / "card.json")


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in MODELS.glob("*/card.json")))
def test_committed_models_match_their_cards(folder: str) -> None:
    card = load_card(MODELS / folder / "card.json")
    assert card.onnx_sha256 == sha256_hex(MODELS / folder / "model.onnx")
    assert card.model == folder
