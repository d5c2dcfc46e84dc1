"""What is given and can't be used, as `engine-build` tells it: exit code and message, and nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper

from engine_build.__main__ import main
from engine_build.publish import Publisher
from schemas.engine_card import load_card
from tests.helpers.onnx_graphs import saved
from tests.helpers.releases import release, render

MODEL = Path(__file__).parents[2] / "models" / "bakery-smoother" / "model.onnx"


def told(capsys: pytest.CaptureFixture[str], folder: Path, *options: str | Path, onnx_file: Path = MODEL) -> str:
    """What a build says that ends with 2 and publishes nothing."""
    out = folder / "out"
    assert main([str(each) for each in ("build", "--onnx", onnx_file, "--out", out, "--target", "sm80", *options)]) == 2
    assert not out.exists()
    return " ".join(capsys.readouterr().err.split())


def with_chance(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Bernoulli", ["sales"], ["chance"], name="dice"))


def with_another_name(model: onnx.ModelProto) -> None:
    for names in (node.input for node in model.graph.node):
        for place, name in enumerate(names):
            names[place] = "sold" if name == "sales" else name
    next(each for each in model.graph.input if each.name == "sales").name = "sold"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_chance, "node 'dice': operator Bernoulli isn't taken by any TensorRT; nearest form: nothing: a forecast"),
        (with_another_name, "input 'sold': no field of that name in the schema, expected one of ["),
    ],
)
def test_a_model_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    model = onnx.load(str(MODEL))
    change(model)
    assert said in told(capsys, tmp_path, onnx_file=saved(model, tmp_path))


def test_a_truncated_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(MODEL.read_bytes()[:2000])
    assert "cut off" in told(capsys, tmp_path, onnx_file=tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (slice(7, 9), np.nan, "column sales: 2 rows hold NaN or infinity, first row 7; drop or fill them"),
        (slice(None), 3.0, "column sales: all 700 rows are the same (first value 3), expected it to vary"),
    ],
)
def test_calibration_rows_that_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: slice, value: float, said: str
) -> None:
    random = np.random.default_rng(3)
    columns = {"as_of": (18_000 + np.arange(700) % 20).astype(np.float32)}
    for name, values in load_card(MODEL.with_name("card.json")).golden.inputs.items():
        golden = np.asarray(values, np.float32)
        noise = random.uniform(1.0, 2.0, (700, *golden.shape[1:]))
        columns[name] = (np.resize(golden, noise.shape) * noise + noise).astype(np.float32)
    columns["sales"][row] = value
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({name: pa.array(values.tolist()) for name, values in columns.items()}), path)
    assert said in told(capsys, tmp_path, "--calibration", path)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-5], lambda content: bytes([content[0] ^ 1]) + content[1:]]
)
def test_a_plan_that_was_cut_off_or_has_a_flipped_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    folder = Publisher(tmp_path, render=render).publish(release(), make_current=True).folder
    (plan, *_) = (folder / "plans").iterdir()
    assert main(["verify", str(folder)]) == 0
    plan.write_bytes(damage(plan.read_bytes()))
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 9
    text = " ".join(capsys.readouterr().out.split())
    assert f"{plan.name}: sha256 is" in text
    assert "the file is damaged or was replaced: publish it again" in text
