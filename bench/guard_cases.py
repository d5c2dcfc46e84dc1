"""The data, the models and the ways of being wrong that the guard is measured with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from demo.series import SeriesSet
from engine_build.allowances import ALLOWANCES
from engine_build.precision import Workpiece, write_int8
from engine_build.prove import Golden, tolerance_of
from schemas.engine_card import CARD_NAME, load_card
from worker.engine import EngineSpec
from worker.guard_reference import Reference, reference_of

MAX_ROWS = 8192
COVARIATES = ("promo", "discount", "holiday", "temperature")
SCALE_FACTORS = (0.125, 8.0, 32.0)
"""Activation scales of the broken INT8 graphs, times the calibrated ones: everything saturates, or is rounded to nothing."""
CALIBRATION_ROWS = 512

SOUND = "nothing"
WITHOUT_WEEKDAYS = "nothing, histories without weekdays"
CONTROLS = (SOUND, WITHOUT_WEEKDAYS)
"""Cases that must not be found."""

Floats = NDArray[np.float32]
Inputs = dict[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model of the repository in ONNX Runtime, with what its card says."""

    path: Path
    session: ort.InferenceSession
    spec: EngineSpec
    reference: Reference

    @classmethod
    def load(cls, folder: Path, graph: Path | None = None) -> Model:
        """The model in `folder`; with `graph`, another graph under the same card."""
        card, path = load_card(folder / CARD_NAME), graph or folder / "model.onnx"
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shapes = {tensor.name: tensor.shape for tensor in card.inputs}
        inputs = {name: int(shape[1]) if len(shape) > 1 else None for name, shape in shapes.items()}
        spec = EngineSpec(
            inputs=inputs,
            horizon=card.horizon,
            quantiles=card.quantiles,
            max_rows=MAX_ROWS,
            model=card.model,
            version=card.version,
            precision=card.precision,
            digest=card.onnx_sha256,
        )
        return cls(path=path, session=session, spec=spec, reference=reference_of(card))

    def renamed(self) -> Model:
        """The same as another version, as a broken build of it would be."""
        digest = self.spec.digest[::-1]
        return replace(self, spec=replace(self.spec, digest=digest))

    def inputs(self, series: SeriesSet, as_of: int) -> Inputs:
        """What the worker would decode of the events of one day: name -> float32[series, ...]."""
        fields = {**series.windows(as_of), "as_of": np.full(len(series), as_of, np.float32)}
        return {name: np.ascontiguousarray(fields[name]) for name in self.spec.inputs}

    def forecast(self, inputs: Inputs) -> Floats:
        """float32[rows, horizon, quantiles]."""
        rows = len(next(iter(inputs.values())))
        parts = [
            self.session.run(["forecast"], {name: values[at : at + MAX_ROWS] for name, values in inputs.items()})[0]
            for at in range(0, rows, MAX_ROWS)
        ]
        return np.concatenate(parts).astype(np.float32)


def scaled(values: Floats) -> Floats:
    """Thirty percent too much."""
    return (values * np.float32(1.3)).astype(np.float32)


def zeros(values: Floats) -> Floats:
    """Nothing at all."""
    return np.zeros_like(values)


def day_late(values: Floats) -> Floats:
    """Each day gets the forecast of the day before."""
    return np.concatenate([values[:, :1], values[:, :-1]], axis=1)


def day_early(values: Floats) -> Floats:
    """Each day gets the forecast of the day after."""
    return np.concatenate([values[:, 1:], values[:, -1:]], axis=1)


def not_a_number(values: Floats) -> Floats:
    """Not one number."""
    return np.full_like(values, np.nan)


def nothing(values: Floats) -> Floats:
    """The forecasts as they are."""
    return values


DISTORTIONS: Mapping[str, Callable[[Floats], Floats]] = {
    SOUND: nothing,
    "not a number": not_a_number,
    "zeros": zeros,
    "scaled by 1.3": scaled,
    "a day late": day_late,
    "a day early": day_early,
}


def some_rows(inputs: Inputs, rows: slice) -> Inputs:
    """These rows of every input, views."""
    return {name: column[rows] for name, column in inputs.items()}


def without_weekdays(inputs: Inputs) -> Inputs:
    """The days of each history in another order: no forecast is late or early against that."""
    random = np.random.default_rng(len(inputs["sales"]))
    return {**inputs, "sales": random.permuted(inputs["sales"], axis=1)}


def golden_share(model: Model, folder: Path) -> float:
    """Largest difference from the card's golden batch, as a share of what an INT8 plan may have: above 1 it isn't loaded."""
    card = load_card(folder / CARD_NAME)
    golden = Golden.of_card(card)
    allowed = tolerance_of(ALLOWANCES["int8"], card, golden)
    apart = np.abs(model.forecast(dict(golden.inputs)).astype(np.float64) - golden.outputs)
    return float((apart / (allowed.absolute + allowed.relative * np.abs(golden.outputs))).max())


def swaps() -> Iterator[tuple[str, str]]:
    """Pairs of covariates that could be mistaken for each other."""
    return itertools.combinations(COVARIATES, 2)


def swapped(inputs: Inputs, first: str, second: str) -> Inputs:
    """`inputs` with two covariates in each other's place, past and future."""
    moved = dict(inputs)
    for suffix in ("", "_next"):
        one, other = first + suffix, second + suffix
        moved[one], moved[other] = inputs[other], inputs[one]
    return moved


def calendars(inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """What a graph sees whose calendar is a day off, while histories and plans stay as they are."""
    for name, days in (("calendar a day ahead", 1), ("calendar a day behind", -1)):
        yield name, {**inputs, "as_of": inputs["as_of"] + np.float32(days)}


def broken_int8(folder: Path, samples: Inputs) -> Iterator[tuple[str, Model]]:
    """The model in `folder` as INT8, with calibrated scales and with broken ones."""
    with TemporaryDirectory() as scratch:
        whole = Path(scratch) / "int8.onnx"
        columns = {name: values[:CALIBRATION_ROWS] for name, values in samples.items()}
        write_int8(Workpiece(folder / "model.onnx", columns), whole)
        yield "INT8", Model.load(folder, whole)
        for factor in SCALE_FACTORS:
            path = Path(scratch) / f"{factor}.onnx"
            onnx.save(_rescaled(onnx.load(str(whole)), factor), str(path))
            yield f"INT8, activation scales times {factor:g}", Model.load(folder, path)


def _rescaled(model: Any, factor: float) -> Any:  # noqa: ANN401 - onnx has no types
    """Every scalar scale of a Q/DQ pair (an activation's) times `factor`."""
    scales = {node.input[1] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for each in model.graph.initializer:
        values = numpy_helper.to_array(each)
        if each.name in scales and values.size == 1:
            each.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), each.name))
    return model
