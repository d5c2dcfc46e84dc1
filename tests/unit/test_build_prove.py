from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine_build.allowances import ALLOWANCES, Allowance, parse_allowances
from engine_build.errors import InputError, ProofError
from engine_build.prove import (
    FloatArray,
    Golden,
    Tolerance,
    pointwise_error,
    proof_sizes,
    prove,
    prove_structure,
    tolerance_of,
)
from engine_build.trt_types import TensorFacts
from schemas.engine_card import EngineCard, Precision, Profile, load_card

MODELS = Path(__file__).parents[2] / "models"
NAMES = sorted(path.parent.name for path in MODELS.glob("*/card.json"))
PROFILE = Profile(min_rows=1, opt_rows=8, max_rows=64)
TOLERANCE = Tolerance(relative=0.01, absolute=0.001, summed=0.002)


def card_of(name: str) -> EngineCard:
    return load_card(MODELS / name / "card.json")


class OnnxRunner:
    def __init__(self, path: Path) -> None:
        self._session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        values: FloatArray = self._session.run(["forecast"], dict(inputs))[0]
        return values


class Computed:
    """Runs `compute` on `x`; counts the batch sizes."""

    def __init__(self, compute: Callable[[FloatArray], FloatArray]) -> None:
        self._compute = compute
        self.sizes: list[int] = []

    def run(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        self.sizes.append(len(inputs["x"]))
        return self._compute(inputs["x"])


def right(x: FloatArray) -> FloatArray:
    return (x[:, :1, None] * np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)).astype(np.float32)


X = np.linspace(1.0, 4.0, 12, dtype=np.float32).reshape(4, 3)
GOLDEN = Golden(inputs={"x": X}, outputs=right(X))


@pytest.mark.parametrize("name", NAMES)
def test_every_committed_model_proves_itself_in_onnx_runtime(name: str) -> None:
    card = card_of(name)
    golden = Golden.of_card(card)
    proof = prove(
        OnnxRunner(MODELS / name / "model.onnx"), golden, PROFILE, tolerance_of(ALLOWANCES["fp32"], card, golden)
    )
    assert proof.sizes == proof_sizes(PROFILE)
    assert proof.worst <= 1.0


def test_the_sizes_are_the_profiles_and_odd_ones_within_it() -> None:
    sizes = proof_sizes(Profile(min_rows=1, opt_rows=2048, max_rows=8192))
    assert {1, 2048, 8192} <= set(sizes)
    assert len([rows for rows in sizes if rows % 2]) >= 4
    assert proof_sizes(Profile(min_rows=5, opt_rows=5, max_rows=5)) == (5,)
    assert set(proof_sizes(Profile(min_rows=4, opt_rows=5, max_rows=6))) == {4, 5, 6}


def test_all_sizes_are_run() -> None:
    runner = Computed(right)
    prove(runner, GOLDEN, PROFILE, TOLERANCE)
    assert set(runner.sizes) == set(proof_sizes(PROFILE))


def test_within_the_tolerance_is_good_enough_and_its_share_is_told() -> None:
    proof = prove(Computed(lambda x: right(x) * np.float32(1.001)), GOLDEN, PROFILE, TOLERANCE)
    assert 0.09 < proof.worst < 0.11
    assert 0.0009 < proof.summed < 0.0011


def wrong_at(x: FloatArray, rows: int) -> FloatArray:
    values = right(x)
    if len(x) == rows:
        values[-1, 1, 0] *= 1.5
    return values


def rounded(x: FloatArray) -> FloatArray:
    return right(x) * np.float32(1.004)


def not_finite(x: FloatArray) -> FloatArray:
    values = right(x)
    values[0, 0, 0] = np.nan
    return values


def crosstalk(x: FloatArray) -> FloatArray:
    return np.asarray(right(x) + 0.002 * np.abs(x[::-1, :1, None]), np.float32)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda x: wrong_at(x, 64), r"64 rows: row 63, day 1, quantile 0: got \S+, expected \S+ within"),
        (lambda x: wrong_at(x, 33), r"33 rows: row 32"),
        (rounded, r"1 rows: differences sum up to 0\.400% of the forecasts, 0\.200% is allowed"),
        (not_finite, "values aren't finite"),
        (lambda x: right(x)[:, :1], r"got shape \(1, 1, 2\), expected \(1, 2, 2\)"),
        (crosstalk, "forecasts change with the other rows of the batch"),
    ],
)
def test_a_plan_that_computes_something_else_fails(compute: Callable[[FloatArray], FloatArray], message: str) -> None:
    with pytest.raises(ProofError, match=message) as caught:
        prove(Computed(compute), GOLDEN, PROFILE, TOLERANCE)
    assert "it isn't published" in str(caught.value)


def test_where_only_the_smallest_batches_are_wrong_the_profile_that_helps_is_named() -> None:
    def wrong_below(rows: int) -> Callable[[FloatArray], FloatArray]:
        return lambda x: right(x) * np.float32(1.5 if len(x) < rows else 1.0)

    for rows, first in ((2, 2), (3, 3)):
        with pytest.raises(ProofError, match=rf"from {first} rows on it is right.*--profile {first}:8:64, and"):
            prove(Computed(wrong_below(rows)), GOLDEN, PROFILE, TOLERANCE)
    for rows in (64, 65):  # the usual size is wrong, or all are
        with pytest.raises(ProofError) as caught:
            prove(Computed(wrong_below(rows)), GOLDEN, PROFILE, TOLERANCE)
        assert "--profile" not in str(caught.value)


def test_rows_that_padding_spoils_fail() -> None:
    def spoiled(x: FloatArray) -> FloatArray:
        values = right(x)
        return values if np.all(np.any(x != 0, axis=1)) else np.full_like(values, np.nan)

    with (
        pytest.raises(ProofError, match="forecasts change with the other rows of the batch by inf"),
        np.errstate(all="ignore"),
    ):
        prove(Computed(spoiled), GOLDEN, PROFILE, TOLERANCE)


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.01), ("int8", 0.25)])
def test_low_precision_may_err_by_a_share_of_value_and_mean(precision: Precision, share: float) -> None:
    card = card_of("bakery-lstm")
    golden = Golden.of_card(card)
    tolerance = tolerance_of(ALLOWANCES[precision], card, golden)
    assert tolerance.relative == share
    assert tolerance.absolute == pytest.approx(share * np.abs(golden.outputs).mean())


def facts(**changes: Any) -> TensorFacts:
    fields: dict[str, Any] = {"name": "sales", "dtype": "float32", "shape": (None, 30), "is_input": True}
    fields["profiles"] = (((1, 30), (8, 30), (64, 30)),)
    return TensorFacts(**(fields | changes))


FORECAST = facts(name="forecast", shape=(None, 14, 3), is_input=False, profiles=())


def structure() -> tuple[EngineCard, list[TensorFacts]]:
    card = card_of("bakery-smoother")
    tensors = [
        facts(
            name=tensor.name,
            shape=(None, *tensor.shape[1:]),
            profiles=tuple(tuple((rows, *tensor.shape[1:]) for rows in bounds) for bounds in ((1, 8, 64),)),
        )
        for tensor in card.inputs
    ]
    return card, [*tensors, FORECAST]


def test_a_structure_that_fits_its_card_passes() -> None:
    card, tensors = structure()
    prove_structure(tensors, card, [PROFILE])


def test_all_that_does_not_fit_is_told() -> None:
    card, tensors = structure()
    first = tensors[0].name
    wrong = [
        facts(name="colour"),
        *tensors[1:-1],
        facts(name="forecast", dtype="float16", shape=(None, 14, 3), is_input=False, profiles=()),
    ]
    with pytest.raises(ProofError) as caught:
        prove_structure(wrong, card, [PROFILE])
    text = str(caught.value)
    assert f"{first} is missing" in text
    assert "colour isn't in the card" in text
    assert "forecast: got output float16[batch, 14, 3], expected output float32[batch, 14, 3]" in text
    with pytest.raises(ProofError, match=r"got profiles \[\(1, 8, 64\)\], expected \[\(1, 8, 65\)\] rows"):
        prove_structure(tensors, card, [Profile(min_rows=1, opt_rows=8, max_rows=65)])


def test_tolerances_can_be_named() -> None:
    found = parse_allowances(["int8=0.3:0.05", "fp32=1e-3:0.002"])
    assert found["int8"] == Allowance(pointwise=0.3, summed=0.05)
    assert found["fp16"] == ALLOWANCES["fp16"]
    card = card_of(NAMES[0])
    tolerance = tolerance_of(found["fp32"], card, Golden.of_card(card))
    assert (tolerance.relative, tolerance.summed) == (1e-3, 0.002)


@pytest.mark.parametrize(
    "text", ["int8", "int4=0.1:0.1", "int8=0.1", "int8=0:0.1", "int8=0.1:1.5", "int8=1e:0.1", "fp16=-1:1"]
)
def test_what_is_no_tolerance_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"--tolerance: got .* expected PRECISION=POINTWISE:SUMMED with fp32, fp16, int8"
    ):
        parse_allowances([text])


def test_a_graph_that_errs_more_itself_may_err_more_on_the_gpu() -> None:
    card = card_of(NAMES[0])
    golden = Golden.of_card(card)
    found = golden.outputs + np.float32(0.4) * (np.abs(golden.outputs) + np.abs(golden.outputs).mean())
    own = pointwise_error(found, golden)
    assert own == pytest.approx(0.4, rel=1e-4)
    assert tolerance_of(ALLOWANCES["int8"], card, golden, own).relative == pytest.approx(0.6, rel=1e-3)
    assert tolerance_of(ALLOWANCES["int8"], card, golden, 0.1).relative == 0.25
    assert tolerance_of(ALLOWANCES["fp32"], card, golden, own).relative == card.golden.relative_tolerance
    named = parse_allowances(["int8=0.3:0.05"])["int8"]
    assert tolerance_of(named, card, golden, own).relative == 0.3
