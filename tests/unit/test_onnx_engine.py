"""What is particular to this engine; what it shares with all others is asked in tests/contract/test_engine.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from schemas.engine_card import CARD_NAME, EngineCard, load_card, sha256_hex
from schemas.load import load_schema
from tests.helpers.models import INPUTS, schema_for, tiny_model
from worker.errors import ContractError, EngineError
from worker.onnx_engine import OnnxEngine


def load(folder: Path, schema: dict[str, Any] | None = None, **changed: Any) -> OnnxEngine:
    """Load what is in `folder`, with its card changed; the card's digest is right unless it is changed, too."""
    model = folder / "model.onnx"
    changed.setdefault("onnx_sha256", sha256_hex(model))
    card: EngineCard = load_card(folder / CARD_NAME).model_copy(update=changed)
    features = schema or load_schema(None, "sku_features")
    return OnnxEngine.load(model, card, features, slots=1, max_rows=4, threads=1)


def rewritten(folder: Path, change: Any) -> Path:
    """The model in `folder`, its graph changed by `change`."""
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    return folder


def test_says_what_the_card_says(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, horizon=7, quantiles=(0.25, 0.75), max_rows=64, version="2026-11")
    spec = load(folder).spec
    assert (spec.model, spec.version, spec.precision) == ("tiny", "2026-11", "fp32")
    assert (spec.horizon, spec.quantiles, spec.max_rows) == (7, (0.25, 0.75), 4)
    assert spec.digest == sha256_hex(folder / "model.onnx")
    assert dict(spec.inputs) == dict(INPUTS)


def test_another_file_than_the_cards_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    with pytest.raises(ContractError, match=f"sha256 is {sha256_hex(folder / 'model.onnx')}, its card says {'0' * 64}"):
        load(folder, onnx_sha256="0" * 64)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ContractError, match="ONNX Runtime can't load it"):
        load(folder)


def test_inputs_are_held_against_the_schema(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, inputs={"sales": 30, "wind": None})
    with pytest.raises(ContractError, match="input 'wind': no field of that name in the schema"):
        load(folder)
    assert dict(load(folder, schema_for({"sales": 30, "wind": None})).spec.inputs) == {"sales": 30, "wind": None}


def test_the_output_is_held_against_the_card(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, horizon=3)
    with pytest.raises(
        ContractError, match=r"output: got 'forecast' float32\[batch, 3, 3\], expected .*\[batch, 5, 3\]"
    ):
        load(folder, horizon=5)


@pytest.mark.parametrize(
    ("onnx_type", "shown"), [(onnx.TensorProto.DOUBLE, "float64"), (onnx.TensorProto.INT32, r"tensor\(int32\)")]
)
def test_other_number_types_are_told_by_name(tmp_path: Path, onnx_type: int, shown: str) -> None:
    def add_input(model: onnx.ModelProto) -> None:
        value = onnx.helper.make_tensor_value_info("discount", onnx_type, ["batch", 30])
        model.graph.input.append(value)

    folder = rewritten(tiny_model(tmp_path), add_input)
    with pytest.raises(ContractError, match=f"input 'discount': got dtype {shown}, expected float32"):
        load(folder)


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    with pytest.raises(ContractError, match=r"input 'sales': got float32\[4, 30\]"):
        load(rewritten(tiny_model(tmp_path), fix))


def test_a_graph_that_gives_too_few_rows_is_found_out(tmp_path: Path) -> None:
    """The declared shape is checked at loading, the real one for each batch."""

    def keep_one_row(model: onnx.ModelProto) -> None:
        nodes = model.graph.node
        nodes[-1].output[0] = "all_rows"
        nodes.append(onnx.helper.make_node("Slice", ["all_rows", "zero", "one"], ["forecast"]))
        for name, number in (("zero", 0), ("one", 1)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([number], np.int64), name))

    engine = load(rewritten(tiny_model(tmp_path), keep_one_row))
    slot = engine.acquire()
    assert slot is not None
    ticket = engine.submit(slot, 3)
    with pytest.raises(EngineError, match=r"forecast shape: got \(1, 3, 3\), expected \(3, 3, 3\)"):
        engine.collect(ticket)
    engine.release(slot)


def test_a_failure_of_the_graph_names_the_batch(tmp_path: Path) -> None:
    engine = load(tiny_model(tmp_path, fails_above=10))
    slot = engine.acquire()
    assert slot is not None
    slot.columns["sales"][:] = 100.0
    ticket = engine.submit(slot, 2)
    with pytest.raises(EngineError, match=r"ONNX Runtime failed on 2 rows: .*out of data bounds"):
        engine.collect(ticket)


def test_what_is_not_a_number_comes_through_for_the_guard(tmp_path: Path) -> None:
    engine = load(tiny_model(tmp_path, nan_below=0.0))
    slot = engine.acquire()
    assert slot is not None
    slot.columns["sales"][:] = [[1.0] * 30, [-1.0] * 30, [1.0] * 30, [1.0] * 30]
    values = engine.collect(engine.submit(slot, 3)).values
    assert np.isnan(values).all(axis=(1, 2)).tolist() == [False, True, False]
